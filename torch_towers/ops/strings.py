"""String ops. A string tensor is a numpy object array of `bytes`; each op is one pass over its elements."""

from __future__ import annotations

import binascii
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import chain, pairwise, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.dtypes import dtype_name, torch_dtype
from torch_towers.errors import InputError
from torch_towers.ops.sizes import as_sizes
from torch_towers.ops.unicode import lower_utf8, upper_utf8
from torch_towers.registry import Spec, Strings, elementwise, op

try:
    import re2 as _re2

    re2: Any = _re2
except ImportError:  # pragma: no cover  only towers with regular expressions need it
    re2 = None

_SAME = elementwise("string")


def strings(items: list[bytes], shape: Sequence[int]) -> Strings:
    """A flat list of bytes as a string tensor of `shape`."""
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


def each(function: Callable[[bytes], bytes], x: Strings) -> Strings:
    """`function` of every element: `[...] -> [...]`."""
    return strings(list(map(function, x.ravel().tolist())), x.shape)


# -- case and white space -----------------------------------------------------------------------------------------------


@op(stage="host", infer=_SAME)
def lower(x: Strings, *, encoding: str = "") -> Strings:
    """Lower case: `[...] -> [...]`. Without an encoding only the letters A to Z change; "utf-8" is Unicode's full mapping.

    Source: tf.raw_ops.StringLower.
    """
    return each(lower_utf8 if encoding else bytes.lower, x)


@op(stage="host", infer=_SAME)
def upper(x: Strings, *, encoding: str = "") -> Strings:
    """Upper case: `[...] -> [...]`, with encodings as in `lower`. Source: tf.raw_ops.StringUpper."""
    return each(upper_utf8 if encoding else bytes.upper, x)


@op(stage="host", infer=_SAME)
def strip(x: Strings) -> Strings:
    """Without the ASCII white space at both ends: `[...] -> [...]`. Source: tf.raw_ops.StringStrip."""
    return each(bytes.strip, x)


# -- splitting and joining ----------------------------------------------------------------------------------------------


def _split_spec(x: Spec, **attrs: Any) -> list[Spec]:
    return [("int64", (None, 2)), ("string", (None,)), ("int64", (2,))]


@op(stage="host", infer=_split_spec)
def split(x: Strings, *, sep: bytes = b"", maxsplit: int = -1) -> tuple[Tensor, Strings, Tensor]:
    """The parts of each string as a sparse matrix: `[n] -> indices [parts, 2], values [parts], shape [2]`.

    `sep` empty splits at runs of ASCII white space. Source: tf.raw_ops.StringSplitV2.
    """
    if maxsplit == 0:
        parts = [[text] for text in x.ravel().tolist()]
    elif sep:
        parts = [text.split(sep, maxsplit) for text in x.ravel().tolist()]
    elif maxsplit < 0:
        parts = [text.split() for text in x.ravel().tolist()]
    else:
        parts = [_split_white_space(text, maxsplit) for text in x.ravel().tolist()]
    return _sparse_rows(parts, x)


def _split_white_space(text: bytes, maxsplit: int) -> list[bytes]:
    """As `bytes.split`, but what remains after `maxsplit` splits is kept where it is empty too."""
    parts = text.split(None, maxsplit)
    return [*parts, b""] if len(parts) == maxsplit else parts


@op(stage="host", infer=_split_spec)
def split_at_any(x: Strings, *, delimiters: bytes, skip_empty: bool = True) -> tuple[Tensor, Strings, Tensor]:
    """The parts of each string between any of the bytes in `delimiters` (none: every byte is a part), as `split` gives them.

    An empty string has no parts. Source: tf.raw_ops.StringSplit.
    """
    if not delimiters:
        parts = [[text[i : i + 1] for i in range(len(text))] for text in x.ravel().tolist()]
        return _sparse_rows(parts, x)
    first = delimiters[:1]
    bounds = re.compile(b"[" + re.escape(delimiters) + b"]") if len(delimiters) > 1 else None
    rows: list[list[bytes]] = []
    for text in x.ravel().tolist():
        row = (bounds.split(text) if bounds else text.split(first)) if text else []
        rows.append([part for part in row if part] if skip_empty else row)
    return _sparse_rows(rows, x)


def _sparse_rows(parts: list[list[bytes]], x: Strings) -> tuple[Tensor, Strings, Tensor]:
    if x.ndim != 1:
        raise InputError(f"split: the input must be a vector, got shape {list(x.shape)}")
    counts = np.fromiter(map(len, parts), np.int64, len(parts))
    rows = np.repeat(np.arange(len(parts)), counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    indices = np.stack([rows, np.arange(len(rows)) - starts], axis=1)
    longest = int(counts.max()) if len(parts) else 0
    values = strings(list(chain.from_iterable(parts)), (-1,))
    return torch.from_numpy(indices), values, torch.tensor([len(parts), longest])


def _join_spec(*xs: Spec, **attrs: Any) -> list[Spec]:
    return [("string", next((x[1] for x in xs if x[1] != ()), ()))]


@op(stage="host", infer=_join_spec)
def string_join(*xs: Strings, separator: bytes = b"") -> Strings:
    """Strings joined element by element: `n times [...] -> [...]`. Scalars go with every element.

    Source: tf.raw_ops.StringJoin.
    """
    shape: tuple[int, ...] = ()
    for x in xs:
        if x.ndim and shape and x.shape != shape:
            raise InputError(f"string_join: input shapes do not match: {list(shape)} vs. {list(x.shape)}")
        shape = shape or x.shape
    if not xs:
        return strings([b""], ())
    columns: list[Iterable[bytes]] = [x.ravel().tolist() if x.ndim or not shape else repeat(x.item()) for x in xs]
    return strings(list(map(separator.join, zip(*columns, strict=False))), shape)


def _reduced_spec(x: Spec, *, axes: tuple[int, ...], keep_dims: bool = False, **attrs: Any) -> list[Spec]:
    if x[1] is None:
        return [("string", None)]
    dropped = {axis % len(x[1]) for axis in axes} if x[1] else set[int]()
    kept = [(1 if i in dropped else size) for i, size in enumerate(x[1]) if keep_dims or i not in dropped]
    return [("string", tuple(kept))]


@op(stage="host", infer=_reduced_spec)
def reduce_join(x: Strings, *, axes: tuple[int, ...], keep_dims: bool = False, separator: bytes = b"") -> Strings:
    """Strings joined along `axes`, along the first of them first. Source: tf.raw_ops.ReduceJoin."""
    if not x.ndim:
        return x
    reduced = [axis % x.ndim for axis in axes]
    kept = [axis for axis in range(x.ndim) if axis not in reduced]
    sizes = [x.shape[axis] for axis in kept]
    count = math.prod(x.shape[axis] for axis in reduced)
    rows = x.transpose(kept + reduced[::-1]).reshape(math.prod(sizes), count)
    shape = [1 if axis in reduced else size for axis, size in enumerate(x.shape)] if keep_dims else sizes
    return strings(list(map(separator.join, rows.tolist())), shape)


def _segment_spec(x: Spec, ids: Spec, *sizes: Any, **attrs: Any) -> list[Spec]:
    if x[1] is None or ids[1] is None:
        return [("string", None)]
    return [("string", (None, *x[1][len(ids[1]) :]))]


@op(stage="host", infer=_segment_spec)
def segment_join(x: Strings, segment_ids: Tensor, *num_segments: int, separator: bytes = b"") -> Strings:
    """Strings joined by segment, in order: `[n, ...], [n] -> [num_segments, ...]`. Source: tf.raw_ops.UnsortedSegmentJoin."""
    (count,) = as_sizes([size.reshape(1) if isinstance(size, Tensor) else size for size in num_segments])
    if x.shape[: segment_ids.ndim] != tuple(segment_ids.shape):
        raise InputError(f"segment_join: the segment ids are {list(segment_ids.shape)}, the strings {list(x.shape)}")
    inner = x.shape[segment_ids.ndim :]
    width = math.prod(inner)
    groups: list[list[bytes]] = [[] for _ in range(count * width)]
    rows = x.reshape(segment_ids.numel(), width).tolist()
    for segment, row in zip(segment_ids.reshape(-1).tolist(), rows, strict=True):
        if not 0 <= segment < count:
            raise InputError("segment_ids are not allowed to exceed num_segments or to have negative values.")
        for column, item in enumerate(row, segment * width):
            if item or groups[column]:  # TensorFlow writes no separator before there is something to separate
                groups[column].append(item)
    return strings(list(map(separator.join, groups)), (count, *inner))


def _ngram_spec(values: Spec, splits: Spec, **attrs: Any) -> list[Spec]:
    return [("string", (None,)), splits]


@op(stage="host", infer=_ngram_spec)
def ngrams(
    values: Strings,
    splits: Tensor,
    *,
    separator: bytes,
    widths: tuple[int, ...],
    left_pad: bytes = b"",
    right_pad: bytes = b"",
    pad_width: int = 0,
    preserve_short: bool = False,
) -> tuple[Strings, Tensor]:
    """The n-grams of each row, width by width: `values [tokens], splits [rows + 1] -> values [ngrams], splits [rows + 1]`.

    Source: tf.raw_ops.StringNGrams.
    """
    if any(width <= 0 for width in widths):
        raise InputError("ngram_widths must contain positive values")
    tokens = values.ravel().tolist()
    bounds = splits.tolist()
    _check_splits(bounds, len(tokens))
    if not tokens or not bounds:
        return values, torch.zeros_like(splits)
    grams: list[bytes] = []
    ends = [0]
    join = separator.join
    for start, stop in pairwise(bounds):
        row = tokens[start:stop]
        for width in widths:
            pad = min(width - 1 if pad_width < 0 else pad_width, width - 1)
            padded = [left_pad] * pad + row + [right_pad] * pad if pad else row
            grams += map(join, zip(*[padded[i:] for i in range(width)], strict=False))
        if preserve_short and row and len(grams) == ends[-1]:
            if pad_width < 0:
                raise InputError(
                    "Pad width should be >= 0 when preserve_short_sequences is True and ngram_widths are not provided"
                )
            grams.append(join([left_pad] * pad_width + row + [right_pad] * pad_width))
        ends.append(len(grams))
    return strings(grams, (-1,)), torch.tensor(ends, dtype=splits.dtype)


def _check_splits(bounds: list[int], size: int) -> None:
    if not bounds:
        return
    if bounds[0] != 0:
        raise InputError(f"First split value must be 0, got {bounds[0]}")
    for before, after in pairwise(bounds):
        if not before <= after <= size:
            raise InputError(f"Invalid split value {after}, must be in [{before}, {size}]")
    if bounds[-1] != size:
        raise InputError(f"Last split value must be data size. Expected {size}, got {bounds[-1]}")


# -- regular expressions ------------------------------------------------------------------------------------------------


@op(stage="host", infer=_SAME)
def regex_replace(x: Strings, *, pattern: bytes, rewrite: bytes, replace_global: bool = True) -> Strings:
    """What RE2 finds is replaced, `\\1` in `rewrite` being a group: `[...] -> [...]`. Source: tf.raw_ops.StaticRegexReplace."""
    return each(replacer(pattern, rewrite, replace_global), x)


@op(stage="host", infer=elementwise("bool"))
def regex_full_match(x: Strings, *, pattern: bytes) -> Tensor:
    """Whether RE2 matches the whole string: `[...] -> [...]` bool. Source: tf.raw_ops.StaticRegexFullMatch."""
    match = compiled(pattern).fullmatch
    found = [match(text) is not None for text in x.ravel().tolist()]
    return torch.tensor(found, dtype=torch.bool).reshape(x.shape)


def compiled(pattern: bytes) -> Any:
    """The pattern as RE2 compiles it. Raises InputError with TensorFlow's message where RE2 refuses it."""
    if re2 is None:
        raise InputError(
            "this tower has regular expressions, and the package google-re2 is not installed: pip install google-re2"
        )
    try:
        return re2.compile(pattern, _options())
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else ""
        raise InputError(f"Invalid pattern: {pattern.decode('utf-8', 'replace')}, error: {reason}") from None


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    return options


_SIMPLE_CLASS = re.compile(rb"\[(?!\^)(?:[^\[\]\\\x80-\xff]|\\[^A-Za-z0-9\x80-\xff]|\\[dswDn])+\]", re.DOTALL)
"""A class of ASCII characters: whatever it matches is one byte, so that a table of 256 bytes does its work."""


@lru_cache(maxsize=256)
def replacer(pattern: bytes, rewrite: bytes, replace_global: bool) -> Callable[[bytes], bytes]:
    """The function from bytes to bytes that `RE2::GlobalReplace` or `RE2::Replace` is for one pattern and rewrite."""
    regexp = compiled(pattern)
    parts, valid = _rewrite_parts(rewrite)
    if max((part for part in parts if isinstance(part, int)), default=0) > regexp.groups or not (
        valid or replace_global
    ):
        return bytes
    if replace_global and len(rewrite) <= 1 and valid and _SIMPLE_CLASS.fullmatch(pattern) and b"\\D" not in pattern:
        return _translator(regexp, rewrite)
    literal = b"".join(part for part in parts if isinstance(part, bytes))
    if all(isinstance(part, bytes) for part in parts):
        expand: Callable[[Any], bytes] = lambda match: literal  # noqa: E731
    else:
        expand = lambda match: b"".join([part if isinstance(part, bytes) else match[part] or b"" for part in parts])  # noqa: E731
    if replace_global:
        return lambda text: _replace_all(regexp, expand, text)
    return lambda text: _replace_first(regexp, expand, text)


def _translator(regexp: Any, rewrite: bytes) -> Callable[[bytes], bytes]:
    found = bytes(byte for byte in range(128) if regexp.fullmatch(bytes([byte])))
    if not rewrite:
        return lambda text: text.translate(None, found)
    table = bytes.maketrans(found, rewrite * len(found))
    return lambda text: text.translate(table)


def _rewrite_parts(rewrite: bytes) -> tuple[list[bytes | int], bool]:
    """Literal bytes and group numbers, and whether RE2 accepts the rewrite; where it does not, the parts before the fault."""
    parts: list[bytes | int] = []
    position = 0
    while position < len(rewrite):
        byte = rewrite[position : position + 1]
        if byte == b"\\":
            position += 1
            byte = rewrite[position : position + 1]
            if byte.isdigit():
                parts.append(int(byte))
            elif byte == b"\\":
                parts.append(byte)
            else:
                return parts, False
        else:
            parts.append(byte)
        position += 1
    return parts, True


def _replace_first(regexp: Any, expand: Callable[[Any], bytes], text: bytes) -> bytes:
    match = regexp.search(text)
    return text if match is None else text[: match.start()] + expand(match) + text[match.end() :]


def _replace_all(regexp: Any, expand: Callable[[Any], bytes], text: bytes) -> bytes:
    pieces: list[bytes] = []
    position = 0
    for match in regexp.finditer(text):
        start, stop = match.span()
        if start == stop:
            return _replace_all_with_empty(regexp, expand, text)
        pieces += (text[position:start], expand(match))
        position = stop
    if not pieces:
        return text
    pieces.append(text[position:])
    return b"".join(pieces)


def _replace_all_with_empty(regexp: Any, expand: Callable[[Any], bytes], text: bytes) -> bytes:
    """`RE2::GlobalReplace` where the empty string matches: not right behind a match, and never inside a character."""
    pieces: list[bytes] = []
    position, last = 0, -1
    while position <= len(text):
        match = regexp.search(text, position)
        if match is None:
            break
        start, stop = match.span()
        pieces.append(text[position:start])
        if start == stop == last:
            step = _character(text, position)
            pieces[-1] = text[position : position + step]
            position += step
            continue
        pieces.append(expand(match))
        position = last = stop
    pieces.append(text[position:])
    return b"".join(pieces)


def _character(text: bytes, position: int) -> int:
    """How many bytes the UTF-8 character at `position` has; 1 where there is no whole one."""
    lead = text[position] if position < len(text) else 0
    size = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    try:
        text[position : position + size].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return 1
    return size


# -- parts and lengths --------------------------------------------------------------------------------------------------


def _substr_spec(x: Spec, pos: Spec, length: Spec, **attrs: Any) -> list[Spec]:
    if pos[1] == () or pos[1] == x[1]:
        return [("string", x[1])]
    if x[1] is None or pos[1] is None:
        return [("string", None)]
    return [("string", (None,) * max(len(x[1]), len(pos[1])))]


@op(stage="host", infer=_substr_spec)
def substr(x: Strings, pos: Tensor, length: Tensor, *, unit: str = "BYTE") -> Strings:
    """`length` bytes or characters from `pos` on, a negative `pos` counting from the end: `[...] -> [...]`, broadcasting.

    Raises InputError where `pos` lies outside a string. Source: tf.raw_ops.Substr.
    """
    shape = x.shape if tuple(pos.shape) == x.shape or not pos.ndim else np.broadcast_shapes(x.shape, tuple(pos.shape))
    texts = np.broadcast_to(x, shape).ravel().tolist()
    positions = pos.expand(shape).reshape(-1).tolist()
    lengths = length.expand(shape).reshape(-1).tolist()
    cut = _cut_bytes if unit == "BYTE" else _cut_characters
    return strings([cut(*item) for item in zip(texts, positions, lengths, range(len(texts)), strict=True)], shape)


def _cut_bytes(text: bytes, pos: int, length: int, index: int) -> bytes:
    start = pos + len(text) if pos < 0 else pos
    if not 0 <= start <= len(text):
        raise InputError(f"pos {pos} out of range for string b'{text.decode('utf-8', 'replace')}' at index {index}")
    return text[start:] if length < 0 else text[start : start + length]


def _cut_characters(text: bytes, pos: int, length: int, index: int) -> bytes:
    """A character is a byte and the continuation bytes (10xxxxxx) behind it, valid UTF-8 or not."""
    starts = [i for i, byte in enumerate(text) if byte & 0xC0 != 0x80 or i == 0]
    count = len(starts)
    starts.append(len(text))
    first = pos if pos >= 0 else count + pos
    if not 0 <= first <= count or (pos < 0 and length < 0):
        raise InputError(f"pos {pos} out of range for string at index {index}")
    return text[starts[first] : starts[min(max(first + length, first), count)]]


_CONTINUATION = bytes(range(0x80, 0xC0))


@op(stage="host", infer=elementwise("int32"))
def string_length(x: Strings, *, unit: str = "BYTE") -> Tensor:
    """The number of bytes, or of UTF-8 characters: `[...] -> [...]` int32. Source: tf.raw_ops.StringLength."""
    texts = x.ravel().tolist()
    if unit != "BYTE":
        texts = [text.translate(None, _CONTINUATION) for text in texts]
    return torch.tensor(list(map(len, texts)), dtype=torch.int32).reshape(x.shape)


# -- numbers ------------------------------------------------------------------------------------------------------------


@op(stage="host", infer=_SAME)
def as_string(
    x: Tensor | Strings,
    *,
    precision: int = -1,
    scientific: bool = False,
    shortest: bool = False,
    width: int = -1,
    fill: str = "",
) -> Strings:
    """Numbers as C's printf writes them, booleans as "true" and "false": `[...] -> [...]`. Source: tf.raw_ops.AsString."""
    pad = f"{fill}{width}" if width > -1 else ""
    if not isinstance(x, Tensor):
        form = b"%" + pad.replace("0", "", 1).encode() + b"s" if fill == "0" else b"%" + pad.encode() + b"s"
        return each(form.__mod__, x) if pad else x
    values: list[Any] = x.reshape(-1).tolist()
    if x.dtype == torch.bool:
        return strings([b"true" if value else b"false" for value in values], x.shape)
    if not (x.is_floating_point() or x.is_complex()):
        if not dtype_name(x).startswith("int"):
            pad = pad.replace("+", "")  # C ignores the sign flag of unsigned numbers
        return strings(list(map(f"%{pad}d".encode().__mod__, values)), x.shape)
    decimals = f".{precision}" if precision > -1 else ""
    form = f"%{pad}{decimals}{'g' if shortest else 'e' if scientific else 'f'}".encode()
    blanks = f"%{pad[1:] if fill == '0' else pad}s".encode()  # C fills with zeros only where there are digits

    def text(value: float) -> bytes:
        if math.isfinite(value):
            return form % value
        sign = "-" if math.copysign(1, value) < 0 else "+" if fill == "+" and pad else ""
        return blanks.replace(b"+", b"").replace(b"#", b"") % f"{sign}{'nan' if math.isnan(value) else 'inf'}".encode()

    if x.is_complex():
        return strings([b"(" + text(value.real) + b"," + text(value.imag) + b")" for value in values], x.shape)
    return strings(list(map(text, values)), x.shape)


def _to_number_spec(x: Spec, *, dtype: str) -> list[Spec]:
    return [(dtype, x[1])]


_BLANK = rb"[ \t\n\v\f\r]*"
_INTEGER = re.compile(_BLANK + rb"[+-]?[0-9]+" + _BLANK)
_UNSIGNED = re.compile(_BLANK + rb"\+?[0-9]+" + _BLANK)
_FLOAT = re.compile(
    _BLANK
    + rb"([+-]?)(?:((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    + rb"|(0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?)"
    + rb"|(inf|infinity)|nan(?:\([0-9A-Za-z_]*\))?)"
    + _BLANK,
    re.IGNORECASE,
)


@op(stage="host", infer=_to_number_spec)
def to_number(x: Strings, *, dtype: str) -> Tensor:
    """Strings read as numbers: `[...] -> [...]`. Raises InputError, with TensorFlow's message, for what is not a number.

    Source: tf.raw_ops.StringToNumber.
    """
    texts = x.ravel().tolist()
    if dtype in ("float32", "float64"):
        values = np.array(list(map(_float, texts)), np.float64)
        if dtype == "float32":
            values = _round_once(values, texts)
        return torch.from_numpy(values).reshape(x.shape)
    limits = torch.iinfo(torch_dtype(dtype))
    syntax = _INTEGER if limits.min < 0 else _UNSIGNED
    numbers: list[int] = []
    for text in texts:
        if syntax.fullmatch(text) is None:
            raise _not_a_number(text)
        digits = text.strip()
        number = int(digits) if len(digits) < 4000 else _long_integer(digits)
        if not limits.min <= number <= limits.max:
            raise _not_a_number(text)
        numbers.append(number)
    return torch.from_numpy(np.array(numbers, dtype)).reshape(x.shape)


def _long_integer(digits: bytes) -> int:
    """Python refuses to read more than 4300 digits; leading zeros are all that can be there."""
    kept = digits.lstrip(b"+-0") or b"0"
    return int(digits[:1].replace(b"+", b"") + kept) if len(kept) < 100 else 1 << 65


def _not_a_number(text: bytes) -> InputError:
    return InputError(f"StringToNumberOp could not correctly convert string: {text.decode('utf-8', 'replace')}")


def _float(text: bytes) -> float:
    """The float64 nearest to what `text` says, as C's strtod reads it."""
    match = _FLOAT.fullmatch(text)
    if match is None:
        raise _not_a_number(text)
    sign, decimal, hexadecimal, infinity = match.groups()
    if decimal is not None:
        value = float(decimal)
    elif hexadecimal is not None:
        try:
            value = float.fromhex(hexadecimal.decode())
        except OverflowError:
            value = math.inf
    else:
        value = math.inf if infinity is not None else math.nan
    return -value if sign == b"-" else value


def _round_once(values: np.ndarray[Any, Any], texts: list[bytes]) -> np.ndarray[Any, Any]:
    """Float64 to float32 without rounding twice: where a float64 lies between two float32, the text itself decides."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
        other = np.nextafter(
            narrow, np.where(values > narrow, np.float32(np.inf), np.float32(-np.inf)).astype(np.float32)
        )
        wide, beyond = narrow.astype(np.float64), other.astype(np.float64)
        limit = float(np.finfo(np.float32).max) + 2.0**103
        halfway = ((wide + beyond) / 2 == values) & (values != wide) | (np.abs(values) == limit)
    for index in np.flatnonzero(halfway).tolist():
        exact, value = _exact(texts[index]), Fraction(float(values[index]))
        if exact != value:
            up = np.float32(np.inf) if exact > value else np.float32(-np.inf)
            near = np.nextafter(
                np.float64(values[index]), np.float64(up)
            )  # off the middle, to the side of the exact value
            with np.errstate(over="ignore"):
                narrow[index] = np.float32(near)
    return narrow


def _exact(text: bytes) -> Fraction:
    text = text.strip()
    sign = -1 if text[:1] == b"-" else 1
    digits = text.lstrip(b"+-").decode().lower()
    if not digits.startswith("0x"):
        return sign * Fraction(digits)
    mantissa, _, exponent = digits[2:].partition("p")
    whole, _, part = mantissa.partition(".")
    return sign * Fraction(int((whole + part) or "0", 16)) * Fraction(2) ** (int(exponent or 0) - 4 * len(part))


# -- templates ----------------------------------------------------------------------------------------------------------


@op(stage="host", infer=lambda *xs, **attrs: [("string", ())])
def string_format(*xs: Tensor | Strings, template: bytes, placeholder: bytes = b"%s", summarize: int = 3) -> Strings:
    """The template with each placeholder replaced by a tensor as TensorFlow prints it: `-> []`. Source: tf.raw_ops.StringFormat."""
    pieces = template.split(placeholder)
    if len(pieces) != len(xs) + 1:
        raise InputError(f"num placeholders in template and num inputs must match: {len(pieces) - 1} vs. {len(xs)}")
    shown = [summary(x, summarize) for x in xs]
    return strings([b"".join(chain.from_iterable(zip(pieces, [*shown, b""], strict=True)))], ())


def summary(x: Tensor | Strings, summarize: int) -> bytes:
    """A tensor as TensorFlow prints it, at most `summarize` elements at both ends of each axis (-1: all of them)."""
    items: list[Any] = x.reshape(-1).tolist() if isinstance(x, Tensor) else x.ravel().tolist()
    limit = len(items) + 1 if summarize < 0 else summarize
    show = _shown(x)
    if not limit and isinstance(x, Tensor) and x.dtype == torch.bool:
        return b""
    if not x.ndim:
        return show(items[0]) if limit else b"..."
    return _summary(items, list(x.shape), 0, limit, show)


def _summary(items: list[Any], shape: list[int], depth: int, limit: int, show: Callable[[Any], bytes]) -> bytes:
    size = shape[0]
    if len(shape) == 1:
        if size <= 2 * limit:
            return b"[" + b" ".join(map(show, items)) + b"]"
        head, tail = items[:limit], items[size - limit :]
        return b"[" + b" ".join([*map(show, head), b"...", *map(show, tail)] if limit else [b"", b"..."]) + b"]"
    gap = b"\n" * (len(shape) - 1)
    indent = gap + b" " * (depth + 1)
    if not limit or not items:
        return b"[" + gap + b" ...]"
    step = len(items) // size
    indices: list[int | None] = list(range(size))
    if size > 2 * limit:
        indices[limit : size - limit] = [None]
    rows = [
        b"..." if i is None else _summary(items[i * step : (i + 1) * step], shape[1:], depth + 1, limit, show)
        for i in indices
    ]
    return b"[" + indent.join(rows) + b"]"


_NAMED = {b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b'"': b'\\"', b"'": b"\\'", b"\\": b"\\\\"}
_ESCAPED = [_NAMED.get(bytes([byte]), bytes([byte]) if 32 <= byte != 127 else b"\\%03o" % byte) for byte in range(256)]


def _shown(x: Tensor | Strings) -> Callable[[Any], bytes]:
    if not isinstance(x, Tensor):
        return lambda item: b'"' + b"".join(map(_ESCAPED.__getitem__, item)) + b'"'
    if x.dtype == torch.bool:
        return lambda item: b"1" if item else b"0"
    if x.dtype == torch.float64:
        return lambda item: _float_text(item, 15, 17, float)
    if x.is_floating_point():
        return lambda item: _float_text(item, 6, 9, np.float32)
    return lambda item: b"%d" % item


def _float_text(value: float, digits: int, enough: int, kind: Callable[[Any], Any]) -> bytes:
    """The shorter of two lengths that reads back as the same number."""
    if not math.isfinite(value):
        return str(value).encode()
    short = b"%.*g" % (digits, value)
    return short if kind(float(short)) == kind(value) else b"%.*g" % (enough, value)


# -- base64 -------------------------------------------------------------------------------------------------------------


@op(stage="host", infer=_SAME)
def encode_base64(x: Strings, *, pad: bool = False) -> Strings:
    """Web-safe base64: `[...] -> [...]`. Source: tf.raw_ops.EncodeBase64."""
    return each(urlsafe_b64encode if pad else lambda text: urlsafe_b64encode(text).rstrip(b"="), x)


_BASE64 = re.compile(rb"[A-Za-z0-9_-]*")


@op(stage="host", infer=_SAME)
def decode_base64(x: Strings) -> Strings:
    """What web-safe base64, padded or not, stands for: `[...] -> [...]`. Source: tf.raw_ops.DecodeBase64."""
    return each(_decode_base64, x)


def _decode_base64(text: bytes) -> bytes:
    if len(text) % 4 == 1:
        raise InputError("Base64 string length cannot be 1 modulo 4.")
    digits = text
    if len(text) % 4 == 0:
        digits = text[:-2] if text[-2:] == b"==" else text[:-1] if text[-1:] == b"=" else text
    if _BASE64.fullmatch(digits) is None or len(digits) % 4 == 1:
        raise InputError("Invalid character found in base64.")
    try:
        return urlsafe_b64decode(digits + b"=" * (-len(digits) % 4))
    except binascii.Error:
        raise InputError("Invalid character found in base64.") from None
