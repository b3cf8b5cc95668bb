"""Unicode as in TensorFlow's ICU: case, encodings, scripts."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import groupby
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.formats.normalization import of_runs
from torch_towers.formats.unicode_13 import SCRIPT_RUNS
from torch_towers.graph.dtypes import Dtype
from torch_towers.graph.registry import Spec, Strings, elementwise, op
from torch_towers.kernels import native

Errors = Literal["strict", "replace", "ignore"]
"""What becomes of what is not valid."""
Output = Literal["UTF-8", "UTF-16-BE", "UTF-32-BE"]
"""The encodings that strings can be written in."""
_UNKNOWN = 103  # ICU's script of unassigned, private and surrogate code points
_REPLACEMENT = 0xFFFD
_PAMUDPOD = "\u1734"


# -- case ---------------------------------------------------------------------------------------------------------------


def lower_utf8(texts: Sequence[bytes]) -> list[bytes]:
    """Texts in Unicode's lower case, including final sigma. Invalid UTF-8 becomes U+FFFD, and a NUL ends a text, as in
    TensorFlow."""
    return _cased(texts, bytes.lower, _lower)


def upper_utf8(texts: Sequence[bytes]) -> list[bytes]:
    """Texts in Unicode's upper case ("ß" becomes "SS"); U+FFFD and NUL as in `lower_utf8`."""
    return _cased(texts, bytes.upper, _upper)


def _cased(texts: Sequence[bytes], ascii_case: Callable[[bytes], bytes], case: Callable[[str], str]) -> list[bytes]:
    if not texts:
        return []
    # All texts as one, in which a NUL ends words and broken characters as the end of a text does.
    joined = b"\0".join([text.partition(b"\0")[0] for text in texts])
    return (ascii_case(joined) if joined.isascii() else _cased_characters(joined, case)).split(b"\0")


def _cased_characters(text: bytes, case: Callable[[str], str]) -> bytes:
    known = text.decode("utf-8", "replace")
    later = _later()
    if later.isdisjoint(known):
        return case(known).encode()
    # Characters unassigned in Unicode 13 have no case and separate words, but this Python's Unicode is newer and may
    # treat them as letters.
    parts = groupby(known, later.__contains__)
    return "".join("".join(part) if is_later else case("".join(part)) for is_later, part in parts).encode()


def _lower(text: str) -> str:
    if _PAMUDPOD in text and "Σ" in text:
        return "\0".join(map(_lower_around_pamudpod, text.split("\0")))
    return text.lower()


def _lower_around_pamudpod(text: str) -> str:
    """Of one text: a mark in Unicode 13 later became part of a letter, and Python ends words at it, so another replaces it."""
    mark = next(mark for mark in _marks() if mark not in text)
    return text.replace(_PAMUDPOD, mark).lower().replace(mark, _PAMUDPOD)


def _marks() -> Iterator[str]:
    return (mark for mark in map(chr, range(0x308, 0x110000)) if unicodedata.category(mark) == "Mn")


def _upper(text: str) -> str:
    upper = text.upper()
    later = _later()
    if later.isdisjoint(upper):
        return upper
    return "".join(
        char.upper() if later.isdisjoint(char.upper()) else char for char in text
    )  # an uppercase letter newer than its lowercase


@lru_cache(maxsize=1)
def _later() -> frozenset[str]:
    """Characters that affect case mapping in this Python's Unicode but are unassigned in Unicode 13."""
    starts, scripts = _scripts()
    runs = zip(starts.tolist(), [*starts[1:].tolist(), 0x110000], scripts.tolist())
    unknown = (chr(code) for start, stop, script in runs if script == _UNKNOWN for code in range(start, stop))
    return frozenset(
        char for char in unknown if unicodedata.category(char) not in ("Cn", "Co", "Cs") and _matters(char)
    )


def _matters(char: str) -> bool:
    """Whether `char` affects case mapping: it is cased, or a word continues across it for the final sigma."""
    has_case = char.lower() != char or char.upper() != char or f"{char}Σ".lower()[-1] == "ς"
    return has_case or f"AΣ{char}A".lower()[1] != "ς"


# -- encodings ----------------------------------------------------------------------------------------------------------

Decoder = Callable[[bytes], Iterator[tuple[int, int]]]
"""The code points of a string with their sizes in bytes; -1 is an invalid sequence."""


def _decode_utf8(text: bytes) -> Iterator[tuple[int, int]]:
    position = 0
    while position < len(text):
        try:
            good, bad = text[position:].decode(), 0
        except UnicodeDecodeError as error:
            good, bad = text[position : position + error.start].decode(), error.end - error.start
        for char in good:
            code = ord(char)
            size = 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
            position += size
            yield code, size
        if bad:
            position += bad
            yield -1, bad


def _decode_utf16(order: str) -> Decoder:
    def decode(text: bytes) -> Iterator[tuple[int, int]]:
        units = np.frombuffer(text[: len(text) // 2 * 2], f"{order}u2").tolist()
        position, odd = 0, len(text) % 2
        while position < len(units):
            unit = units[position]
            position += 1
            if not 0xD800 <= unit < 0xE000:
                yield unit, 2
            elif unit < 0xDC00 and position < len(units) and 0xDC00 <= units[position] < 0xE000:
                yield 0x10000 + ((unit - 0xD800) << 10) + units[position] - 0xDC00, 4
                position += 1
            elif unit < 0xDC00 and position == len(units) and odd:
                yield -1, 3
                odd = 0
            else:
                yield -1, 2
        if odd:
            yield -1, 1

    return decode


def _decode_utf32(order: str) -> Decoder:
    def decode(text: bytes) -> Iterator[tuple[int, int]]:
        for code in np.frombuffer(text[: len(text) // 4 * 4], f"{order}u4").tolist():
            yield (code if code < 0xD800 or 0xDFFF < code < 0x110000 else -1), 4
        if len(text) % 4:
            yield -1, len(text) % 4

    return decode


def _decode_bytes(codec: str) -> Decoder:
    table = [_code(byte, codec) for byte in range(256)]

    def decode(text: bytes) -> Iterator[tuple[int, int]]:
        return ((table[byte], 1) for byte in text)

    return decode


def _code(byte: int, codec: str) -> int:
    try:
        return ord(bytes([byte]).decode(codec))
    except UnicodeDecodeError:
        return byte if codec.startswith("cp125") else -1  # ICU maps the holes of windows-125x to control characters


_MULTIBYTE: dict[str, Decoder] = {
    "utf8": _decode_utf8,
    "utf16be": _decode_utf16(">"),
    "utf16le": _decode_utf16("<"),
    "utf32be": _decode_utf32(">"),
    "utf32le": _decode_utf32("<"),
}
_CODECS = {
    **dict.fromkeys(("usascii", "ascii"), "ascii"),
    **dict.fromkeys(("iso88591", "latin1"), "latin-1"),
    **{f"iso8859{part}": f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15)},
    **{f"windows{page}": f"cp{page}" for page in (1250, 1251, 1252, 1254, 1256, 1258)},
    "cp1252": "cp1252",
    "koi8r": "koi8-r",
    "koi8u": "koi8-u",
    "macintosh": "mac-roman",
}
"""Python's names of single-byte encodings."""
_OUTPUTS = {"UTF-8": "utf-8", "UTF-16-BE": "utf-16-be", "UTF-32-BE": "utf-32-be"}


def is_known(encoding: str) -> bool:
    """Whether `encoding`, named as in ICU, is supported."""
    key = _key(encoding)
    return key in _MULTIBYTE or key in _CODECS


Encoding = Annotated[str, is_known]
"""An encoding, as ICU names it, that strings can be read in."""


@cache  # lazy: creating twenty-eight codecs takes 7 ms
def _decoder(encoding: str) -> Decoder:
    key = _key(encoding)
    return _MULTIBYTE.get(key) or _decode_bytes(_CODECS[key])


def _key(encoding: str) -> str:
    return re.sub(r"[^a-z0-9]", "", encoding.lower())


def _characters(
    text: bytes, decoder: Decoder, errors: str, replacement: int, control: bool
) -> Iterator[tuple[int, int, int]]:
    """(code point, byte offset, bytes) of each character, with errors replaced, skipped or raised."""
    offset = 0
    for code, size in decoder(text):
        if code < 0 or (control and code <= 0x1F):
            if errors == "strict":
                raise InputError("Invalid formatting on input string")
            code = replacement
            if errors == "ignore":
                offset += size
                continue
        yield code, offset, size
        offset += size


@op(stage="host", infer=elementwise("string"))
def transcode(
    x: Strings,
    *,
    input_encoding: Encoding,
    output_encoding: Output,
    errors: Errors = "replace",
    replacement: int = _REPLACEMENT,
    replace_control: bool = False,
) -> Strings:
    """Strings in another encoding: `[...] -> [...]`. Raises InputError for invalid text if `errors` is "strict".

    Source: tf.raw_ops.UnicodeTranscode.
    """
    decoder = _decoder(input_encoding)
    plain = decoder is _decode_utf8 and not replace_control
    if plain and (valid := _recoded(x, output_encoding)) is not None:
        return valid
    same = output_encoding == "UTF-8" and plain
    array: Strings = np.empty(x.size, object)
    for i, text in enumerate(x.ravel().tolist()):
        if same and _is_utf8(text):
            array[i] = text
        else:
            found = _characters(text, decoder, errors, replacement, replace_control)
            array[i] = _encode([code for code, _, _ in found], output_encoding)
    return array.reshape(x.shape)


def _recoded(x: Strings, encoding: str) -> Strings | None:
    """UTF-8 in another encoding; None where a text is not valid."""
    array: Strings = np.empty(x.size, object)
    try:
        texts = map(bytes.decode, x.ravel().tolist())
        array[:] = list(map(str.encode, texts, itertools.repeat(_OUTPUTS.get(encoding, encoding))))
    except UnicodeDecodeError:
        return None
    return array.reshape(x.shape)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _encode(codes: list[int], encoding: str) -> bytes:
    text = "".join(map(chr, codes))
    if encoding == "UTF-8":
        try:
            return text.encode()
        except UnicodeEncodeError:  # a surrogate as the replacement character
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return text.encode(_OUTPUTS[encoding], "surrogatepass")


def _decode_spec(x: Spec, *, splits_dtype: str = "int64", offsets: bool = False, **attrs: Any) -> list[Spec]:
    return [(splits_dtype, (None,)), ("int32", (None,)), *([("int64", (None,))] if offsets else [])]


@op(stage="host", infer=_decode_spec)
def unicode_decode(
    x: Strings,
    *,
    input_encoding: Encoding,
    errors: Errors = "replace",
    replacement: int = _REPLACEMENT,
    replace_control: bool = False,
    splits_dtype: Dtype = "int64",
    offsets: bool = False,
) -> tuple[Tensor, ...]:
    """The code points of each string: `[n strings] -> splits [n + 1], codes [characters]`, and their `offsets` in bytes
    if asked.

    Source: tf.raw_ops.UnicodeDecode, tf.raw_ops.UnicodeDecodeWithOffsets.
    """
    decoder = _decoder(input_encoding)
    kind = torch.int32 if splits_dtype == "int32" else torch.int64
    if decoder is _decode_utf8 and not replace_control and native.core is not None:
        parts = native.core.decode(np.ascontiguousarray(x))
        if parts is not None:
            codes, starts, splits = (
                _numbers(part, dtype) for part, dtype in zip(parts, (np.int32, np.int64, np.int64), strict=True)
            )
            return (splits.to(kind), codes, starts) if offsets else (splits.to(kind), codes)
    return _decoded(x, decoder, errors, replacement, replace_control, kind, offsets)


def _numbers(part: bytearray, dtype: type[np.generic]) -> Tensor:
    return torch.from_numpy(np.frombuffer(part, dtype))  # type: ignore[reportUnknownMemberType]


def _decoded(
    x: Strings, decoder: Decoder, errors: str, replacement: int, control: bool, kind: torch.dtype, offsets: bool
) -> tuple[Tensor, ...]:
    """`unicode_decode`, character by character."""
    codes: list[int] = []
    starts: list[int] = []
    splits = [0]
    for text in x.ravel().tolist():
        for code, offset, _ in _characters(text, decoder, errors, replacement, control):
            codes.append(code)
            starts.append(offset)
        splits.append(len(codes))
    found = torch.tensor(splits, dtype=kind), torch.tensor(codes, dtype=torch.int32)
    return (*found, torch.tensor(starts, dtype=torch.int64)) if offsets else found


def _encode_spec(codes: Spec, splits: Spec, **attrs: Any) -> list[Spec]:
    return [("string", (None,))]


@op(stage="host", infer=_encode_spec)
def unicode_encode(
    codes: Tensor,
    splits: Tensor,
    *,
    output_encoding: Output,
    errors: Errors = "replace",
    replacement: int = _REPLACEMENT,
) -> Strings:
    """Strings of code points: `codes [characters], splits [n + 1] -> [n]`.

    Raises InputError for an invalid code point if `errors` is "strict". Source: tf.raw_ops.UnicodeEncode.
    """
    if native.core is not None and output_encoding == "UTF-8" and codes.dtype == torch.int32:
        texts = native.core.encode_codes(codes.contiguous().numpy(), splits.to(torch.int64).contiguous().numpy())
        if texts is not None:
            found: Strings = np.empty(len(texts), object)
            found[:] = texts
            return found
    values: list[int] = codes.tolist()  # type: ignore[reportUnknownMemberType]
    bounds: list[int] = splits.tolist()  # type: ignore[reportUnknownMemberType]
    if bounds[:1] != [0] or bounds[-1] != len(values) or any(a > b for a, b in itertools.pairwise(bounds)):
        raise InputError(f"the splits of the code points must rise from 0 to their number, {len(values)}")
    array: Strings = np.empty(len(bounds) - 1, object)
    for i, (start, stop) in enumerate(itertools.pairwise(bounds)):
        array[i] = _encode(list(_valid(values[start:stop], errors, replacement)), output_encoding)
    return array


def _valid(codes: list[int], errors: str, replacement: int) -> Iterator[int]:
    for code in codes:
        if 0 <= code < 0xD800 or 0xDFFF < code < 0x110000:
            yield code
        elif errors == "strict":
            raise InputError("Code point is out of range for Unicode, or is a surrogate.")
        elif errors == "replace":
            yield replacement


# -- scripts ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _scripts() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first code point of each run of one script, and the script."""
    runs = [run.split(":") for run in SCRIPT_RUNS.split()]
    return np.array([int(start, 16) for start, _ in runs]), np.array([int(script, 16) for _, script in runs], np.int32)


@op(stage="host", infer=elementwise("int32"))
def unicode_script(x: Tensor) -> Tensor:
    """ICU's script number of each code point, -1 for an invalid one: `[...] -> [...]` int32.

    Source: tf.raw_ops.UnicodeScript.
    """
    return torch.as_tensor(of_runs(x.cpu().numpy(), *_scripts()))  # type: ignore[reportUnknownMemberType]
