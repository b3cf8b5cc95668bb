"""String ops. A string tensor is a numpy object array of `bytes`; each op is one pass over its elements."""

from __future__ import annotations

import binascii
import itertools
import math
import operator
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise, repeat
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.registry import Spec, Strings, elementwise, op
from torch_towers.kernels import native
from torch_towers.ops.sizes import as_sizes
from torch_towers.ops.unicode import lower_utf8, upper_utf8

Unit = Literal["BYTE", "UTF8_CHAR"]
"""What positions and lengths in a string count."""
_SAME = elementwise("string")


def each(function: Callable[[bytes], bytes], x: Strings, ascii: Callable[[bytes], bytes] | None = None) -> Strings:
    """`function` applied to every element: `[...] -> [...]`. `ascii` is the same for texts of ASCII alone, in C."""
    texts: list[bytes] = x.ravel().tolist()
    if ascii is None:
        return strings(list(map(function, texts)), x.shape)
    found = list(map(ascii, texts))
    for i in itertools.compress(itertools.count(), map(operator.not_, map(bytes.isascii, texts))):
        found[i] = function(texts[i])
    return strings(found, x.shape)


def items_of(x: Tensor | Strings) -> list[Any]:
    """The elements of a tensor of any shape as a flat list."""
    return x.reshape(-1).tolist() if isinstance(x, Tensor) else x.ravel().tolist()  # type: ignore[reportUnknownMemberType]


# -- case and white space ----------------------------------------------------------------------------------------------


@op(stage="host", infer=_SAME)
def lower(x: Strings, *, encoding: Literal["", "utf-8"] = "") -> Strings:
    """Lower case: `[...] -> [...]`. Without an encoding only A to Z change; "utf-8" uses Unicode's full mapping.

    Source: tf.raw_ops.StringLower.
    """
    return _cased(lower_utf8, x, upper=False) if encoding else each(bytes.lower, x)


@op(stage="host", infer=_SAME)
def upper(x: Strings, *, encoding: Literal["", "utf-8"] = "") -> Strings:
    """Upper case: `[...] -> [...]`, encodings as in `lower`. Source: tf.raw_ops.StringUpper."""
    return _cased(upper_utf8, x, upper=True) if encoding else each(bytes.upper, x)


def _cased(case: Callable[[Sequence[bytes]], list[bytes]], x: Strings, *, upper: bool) -> Strings:
    """`case` of all elements; ASCII texts by the native core."""
    texts: list[bytes] = x.ravel().tolist()
    if native.core is None:
        return strings(case(texts), x.shape)
    cased = native.core.ascii_case(np.ascontiguousarray(x), upper)
    rows = [row for row, text in enumerate(cased) if text is None] if None in cased else []
    for row, text in zip(rows, case([texts[row] for row in rows])):
        cased[row] = text
    return strings(cased, x.shape)


@op(stage="host", infer=_SAME)
def strip(x: Strings) -> Strings:
    """Strips ASCII white space at both ends: `[...] -> [...]`. Source: tf.raw_ops.StringStrip."""
    return each(bytes.strip, x)


# -- splitting and joining ---------------------------------------------------------------------------------------------


def _split_spec(x: Spec, **attrs: Any) -> list[Spec]:
    return [("int64", (None, 2)), ("string", (None,)), ("int64", (2,))]


@op(stage="host", infer=_split_spec)
def split(x: Strings, *, sep: bytes = b"", maxsplit: int = -1) -> tuple[Tensor, Strings, Tensor]:
    """The parts of each string as a sparse matrix: `[n] -> indices [parts, 2], values [parts], shape [2]`.

    An empty `sep` splits at runs of ASCII white space. Source: tf.raw_ops.StringSplitV2.
    """
    if maxsplit < 0 and (found := _split_natively(x, sep, _SEPARATOR if sep else _SPACES, not sep)) is not None:
        return found
    if maxsplit == 0:
        parts = [[text] for text in x.ravel().tolist()]
    elif sep:
        parts = [text.split(sep, maxsplit) for text in x.ravel().tolist()]
    elif maxsplit < 0:
        parts = [text.split() for text in x.ravel().tolist()]
    else:
        parts = [_split_white_space(text, maxsplit) for text in x.ravel().tolist()]
    return _sparse_rows(parts, x)


_SPACES, _SEPARATOR, _ANY, _EACH = range(4)
"""The native core's split modes: at white space, at a separator, at any of its bytes, into bytes."""


def _split_natively(x: Strings, marks: bytes, how: int, skip_empty: bool) -> tuple[Tensor, Strings, Tensor] | None:
    found = (
        None
        if native.core is None or x.ndim != 1
        else native.core.split(np.ascontiguousarray(x), marks, how, skip_empty)
    )
    if found is None:
        return None
    parts, indices, longest = found
    where = np.frombuffer(indices, np.int64).reshape(-1, 2)
    return torch.from_numpy(where), strings(parts, (-1,)), torch.tensor([len(x), longest])  # type: ignore[reportUnknownMemberType]


def _split_white_space(text: bytes, maxsplit: int) -> list[bytes]:
    """Like `bytes.split`, but keeps an empty remainder after `maxsplit` splits."""
    parts = text.split(None, maxsplit)
    return [*parts, b""] if len(parts) == maxsplit else parts


@op(stage="host", infer=_split_spec)
def split_at_any(x: Strings, *, delimiters: bytes, skip_empty: bool = True) -> tuple[Tensor, Strings, Tensor]:
    """The parts of each string between any of the bytes in `delimiters` (none: every byte is a part), results as in
    `split`.

    An empty string has no parts. Source: tf.raw_ops.StringSplit.
    """
    if (found := _split_natively(x, delimiters, _ANY if delimiters else _EACH, skip_empty)) is not None:
        return found
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
    return torch.as_tensor(indices), values, torch.tensor([len(parts), longest])


_MAX_BYTES = 64 << 20
_MOST = 1 << 22
"""Strings that a few bytes may ask for, empty as they are."""


def _bounded(items: list[bytes]) -> list[bytes]:
    """Limits joined strings to 64 MB each: a graph of a kilobyte can double one to gigabytes."""
    if items and (longest := max(map(len, items))) > _MAX_BYTES:
        raise InputError(f"a joined string has {longest} bytes, more than the limit of {_MAX_BYTES}")
    return items


def _join_spec(*xs: Spec, **attrs: Any) -> list[Spec]:
    return [("string", next((x[1] for x in xs if x[1] != ()), ()))]


@op(stage="host", infer=_join_spec)
def string_join(*xs: Strings, separator: bytes = b"") -> Strings:
    """Strings joined elementwise: `n times [...] -> [...]`. Scalars broadcast.

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
    return strings(_bounded(list(map(separator.join, zip(*columns, strict=False)))), shape)


def _reduced_spec(x: Spec, *, axes: tuple[int, ...], keep_dims: bool = False, **attrs: Any) -> list[Spec]:
    if x[1] is None:
        return [("string", None)]
    dropped = {axis % len(x[1]) for axis in axes} if x[1] else set[int]()
    kept = [(1 if i in dropped else size) for i, size in enumerate(x[1]) if keep_dims or i not in dropped]
    return [("string", tuple(kept))]


@op(stage="host", infer=_reduced_spec)
def reduce_join(x: Strings, *, axes: tuple[int, ...], keep_dims: bool = False, separator: bytes = b"") -> Strings:
    """Strings joined along `axes`, in that order. Source: tf.raw_ops.ReduceJoin."""
    if not x.ndim:
        return x
    reduced = [axis % x.ndim for axis in axes]
    kept = [axis for axis in range(x.ndim) if axis not in reduced]
    sizes = [x.shape[axis] for axis in kept]
    count = math.prod(x.shape[axis] for axis in reduced)
    rows = x.transpose(kept + reduced[::-1]).reshape(math.prod(sizes), count)
    shape = [1 if axis in reduced else size for axis, size in enumerate(x.shape)] if keep_dims else sizes
    return strings(_bounded(list(map(separator.join, rows.tolist()))), shape)


def _segment_spec(x: Spec, ids: Spec, *sizes: Any, **attrs: Any) -> list[Spec]:
    if x[1] is None or ids[1] is None:
        return [("string", None)]
    return [("string", (None, *x[1][len(ids[1]) :]))]


@op(stage="host", infer=_segment_spec)
def segment_join(x: Strings, segment_ids: Tensor, *num_segments: int, separator: bytes = b"") -> Strings:
    """Strings joined by segment, in order: `[n, ...], [n] -> [num_segments, ...]`. Source:
    tf.raw_ops.UnsortedSegmentJoin."""
    (count,) = as_sizes([size.reshape(1) if isinstance(size, Tensor) else size for size in num_segments])
    if x.shape[: segment_ids.ndim] != tuple(segment_ids.shape):
        raise InputError(f"segment_join: the segment ids are {list(segment_ids.shape)}, the strings {list(x.shape)}")
    inner = x.shape[segment_ids.ndim :]
    width = math.prod(inner)
    if count * width > _MOST:
        raise InputError(f"segment_join gives {count * width} strings, more than the {_MOST} that it may")
    ids = segment_ids.reshape(-1).numpy()
    if ids.size and (ids.min() < 0 or ids.max() >= count):
        raise InputError("segment_ids are not allowed to exceed num_segments or to have negative values.")
    places = (ids[:, None] * width + np.arange(width)).reshape(-1)
    order = places.argsort(kind="stable")
    items: list[bytes] = x.reshape(-1)[order].tolist()
    ends: list[int] = np.bincount(places, minlength=count * width).cumsum().tolist()
    groups = map(items.__getitem__, map(slice, [0, *ends], ends))
    if not all(items):  # TensorFlow writes no separator before there is something to separate
        groups = (itertools.dropwhile(operator.not_, group) for group in groups)
    return strings(_bounded(list(map(separator.join, groups))), (count, *inner))


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
    """The n-grams of each row, by width: `values [tokens], splits [rows + 1] -> values [ngrams], splits [rows + 1]`.

    Source: tf.raw_ops.StringNGrams.
    """
    if any(width <= 0 for width in widths):
        raise InputError("ngram_widths must contain positive values")
    if native.core is not None and values.size and splits.numel():
        ends = np.empty(splits.numel(), np.int64)
        style = (separator, left_pad, right_pad, max(pad_width, -1), preserve_short)
        found = native.core.ngrams(
            np.ascontiguousarray(values), splits.long().contiguous().numpy(), widths, *style, ends
        )
        if found is not None:
            return strings(found, (-1,)), torch.from_numpy(ends).to(splits.dtype)  # type: ignore[reportUnknownMemberType]
    tokens = values.ravel().tolist()
    bounds = items_of(splits)
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
            if width <= len(padded):
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


# -- parts and lengths -------------------------------------------------------------------------------------------------


def _substr_spec(x: Spec, pos: Spec, length: Spec, **attrs: Any) -> list[Spec]:
    if pos[1] == () or pos[1] == x[1]:
        return [("string", x[1])]
    if x[1] is None or pos[1] is None:
        return [("string", None)]
    return [("string", (None,) * max(len(x[1]), len(pos[1])))]


@op(stage="host", infer=_substr_spec)
def substr(x: Strings, pos: Tensor, length: Tensor, *, unit: Unit = "BYTE") -> Strings:
    """`length` bytes or characters from `pos` on; a negative `pos` counts from the end: `[...] -> [...]`, broadcasting.

    Raises InputError if `pos` is outside a string. Source: tf.raw_ops.Substr.
    """
    shape = x.shape if tuple(pos.shape) == x.shape or not pos.ndim else np.broadcast_shapes(x.shape, tuple(pos.shape))
    if native.core is not None:
        places, sizes = (value.to(torch.int64).expand(shape).contiguous().numpy() for value in (pos, length))
        cut = native.core.cut(np.ascontiguousarray(np.broadcast_to(x, shape)), places, sizes, unit != "BYTE")
        if cut is not None:
            return strings(cut, shape)
    texts = np.broadcast_to(x, shape).ravel().tolist()
    positions = items_of(pos.expand(shape))
    lengths = items_of(length.expand(shape))
    of_one = _cut_bytes if unit == "BYTE" else _cut_characters
    return strings([of_one(*item) for item in zip(texts, positions, lengths, range(len(texts)), strict=True)], shape)


def _cut_text(text: str, pos: int, length: int, index: int) -> str:
    first = pos if pos >= 0 else len(text) + pos
    if not 0 <= first <= len(text) or (pos < 0 and length < 0):
        raise InputError(f"pos {pos} out of range for string at index {index}")
    return text[first : max(first + length, first)]


def _cut_bytes(text: bytes, pos: int, length: int, index: int) -> bytes:
    start = pos + len(text) if pos < 0 else pos
    if not 0 <= start <= len(text):
        raise InputError(f"pos {pos} out of range for string b'{text.decode('utf-8', 'replace')}' at index {index}")
    return text[start:] if length < 0 else text[start : start + length]


def _cut_characters(text: bytes, pos: int, length: int, index: int) -> bytes:
    """A character is a byte and its continuation bytes (10xxxxxx), valid UTF-8 or not."""
    try:
        return _cut_text(text.decode(), pos, length, index).encode()
    except UnicodeDecodeError:
        pass
    starts = [i for i, byte in enumerate(text) if byte & 0xC0 != 0x80 or i == 0]
    count = len(starts)
    starts.append(len(text))
    first = pos if pos >= 0 else count + pos
    if not 0 <= first <= count or (pos < 0 and length < 0):
        raise InputError(f"pos {pos} out of range for string at index {index}")
    return text[starts[first] : starts[min(max(first + length, first), count)]]


_CONTINUATION = bytes(range(0x80, 0xC0))


@op(stage="host", infer=elementwise("int32"))
def string_length(x: Strings, *, unit: Unit = "BYTE") -> Tensor:
    """The number of bytes, or of UTF-8 characters: `[...] -> [...]` int32. Source: tf.raw_ops.StringLength."""
    texts = x.ravel().tolist()
    if unit != "BYTE":
        texts = [text.translate(None, _CONTINUATION) for text in texts]
    return torch.tensor(list(map(len, texts)), dtype=torch.int32).reshape(x.shape)


# -- base64 ------------------------------------------------------------------------------------------------------------


@op(stage="host", infer=_SAME)
def encode_base64(x: Strings, *, pad: bool = False) -> Strings:
    """Web-safe base64: `[...] -> [...]`. Source: tf.raw_ops.EncodeBase64."""
    return each(urlsafe_b64encode if pad else lambda text: urlsafe_b64encode(text).rstrip(b"="), x)


_BASE64 = re.compile(rb"[A-Za-z0-9_-]*")


@op(stage="host", infer=_SAME)
def decode_base64(x: Strings) -> Strings:
    """Decodes web-safe base64, padded or not: `[...] -> [...]`. Source: tf.raw_ops.DecodeBase64."""
    return each(_decode_base64, x)


def _decode_base64(text: bytes) -> bytes:
    if len(text) % 4 == 1 and _BASE64.fullmatch(text[:-1]):
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
