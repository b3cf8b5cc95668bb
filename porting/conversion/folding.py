"""Constant folding: bounds the size of a result before the op runs.

If the shapes are known, the size is their product. If shapes depend on values, or results are strings, a rule of the op
bounds it; an op without a rule grows its operands at most `_GROWTH` times. Any integer that it
reads may be a size, so the largest one counts too. An op without a bound is not folded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from porting.conversion.values import Constant, Sizes
from torch_towers.graph.dtypes import TORCH_DTYPES

LIMIT = 1 << 24
"""Bytes: larger constants are computed at run time instead."""
READ_LIMIT = 1 << 26
"""Elements: larger constants are not read at port time; a splat may have a shape of any size."""
_GROWTH = 32
"""Unicode normalization grows a byte to at most 18, offsets take eight."""
_POINTER = 8


class Read(NamedTuple):
    """A constant operand for a rule: number of elements, bytes of its strings or numbers, and the value itself."""

    elements: int
    bytes: int
    value: Any

    def largest(self, default: int = 0) -> int:
        """The largest of its integers, whatever their sign; `default` where there is none. They are not copied: they may be one that stands for many."""
        found = np.asarray(self.value)
        return max(abs(int(found.min())), abs(int(found.max()))) if found.size else default


Rule = Callable[..., int | None]
_RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(ops, function))
        return function

    return add


def size_of(op: str, operands: Sequence[Any], attrs: dict[str, Any], specs: Any) -> int | None:
    """An upper bound of the bytes of the results of `op` on constants; None if unknown, or if the operands are too
    large to read."""
    if any(elements > READ_LIMIT for elements in map(_elements, _flat(operands))):
        return None
    known = None if specs is None else [_bytes(*spec) for spec in specs]
    if known is not None and None not in known and op not in _RULES:
        return sum(size or 0 for size in known)
    reads = [_read(operand) for operand in _flat(operands)]
    if op in _RULES:
        return _RULES[op](*reads, **attrs)
    total = sum(_POINTER * read.elements + read.bytes for read in reads)
    counted = sum(
        _POINTER * math.prod(shape) for _, shape in specs or () if shape and all(isinstance(n, int) for n in shape)
    )
    return 1024 + counted + _GROWTH * total + _GROWTH * _largest_integer(reads, attrs)


def _largest_integer(reads: Sequence[Read], attrs: dict[str, Any]) -> int:
    """The largest integer among the operands and attributes: it may be a size."""
    found = [read.largest() for read in reads if _is_integer(read.value)]
    found += [abs(number) for value in attrs.values() for number in _flat([value]) if isinstance(number, int)]
    return max(found, default=0)


def is_splat(array: Any) -> bool:
    """Whether one element is broadcast to many: such an array takes no memory until it is stored."""
    strides = array.stride() if isinstance(array, torch.Tensor) else array.strides
    return any(stride == 0 and size > 1 for stride, size in zip(strides, array.shape, strict=True))


def is_large_splat(array: Any) -> bool:
    """Whether a constant is small in memory but large in arithmetic."""
    return is_splat(array) and stored_bytes(array) > LIMIT


def stored_bytes(array: Any) -> int:
    """The bytes of a constant once materialized."""
    return math.prod(array.shape) * (array.element_size() if isinstance(array, torch.Tensor) else _POINTER)


def _bytes(dtype: str | None, shape: Any) -> int | None:
    """The bytes of a result; None for strings and unknown shapes."""
    if shape is None or dtype not in TORCH_DTYPES or not all(isinstance(size, int) for size in shape):
        return None
    return math.prod(shape) * TORCH_DTYPES[dtype].itemsize


def _flat(operands: Iterable[Any]) -> Iterable[Any]:
    for operand in operands:
        if isinstance(operand, (tuple, list)):
            yield from _flat(operand)
        else:
            yield operand


def _elements(operand: Any) -> int:
    return math.prod(operand.shape) if isinstance(operand, (Constant, Sizes)) else 1


def _read(operand: Any) -> Read:
    if isinstance(operand, Sizes):
        return Read(operand.items.size, _POINTER * operand.items.size, np.asarray(operand.items, np.int64))
    if not isinstance(operand, Constant):
        return Read(1, _POINTER, operand)
    array = operand.array
    if isinstance(array, torch.Tensor):
        return Read(array.numel(), array.numel() * array.element_size(), array)
    return Read(array.size, sum(map(len, array.reshape(-1).tolist())), array)


@rule("string_join")
def _string_join(*xs: Read, separator: bytes = b"") -> int:
    """A scalar operand is in every string."""
    count = max(read.elements for read in xs)
    return sum(count * (_POINTER + len(separator)) + read.bytes * (count if read.elements == 1 else 1) for read in xs)


@rule("reduce_join", "segment_join")
def _joined(x: Read, *rest: Read, separator: bytes = b"", **attrs: Any) -> int:
    segments = max((read.largest() for read in rest[1:]), default=0)
    return x.bytes + x.elements * (_POINTER + len(separator)) + _POINTER * segments


@rule("as_string")
def _as_string(x: Read, *, width: int = -1, precision: int = -1, **attrs: Any) -> int:
    return x.elements * (400 + max(width, 0) + max(precision, 0)) + x.bytes


@rule("regex_replace")
def _regex_replace(x: Read, *, rewrite: bytes, **attrs: Any) -> int:
    """Each byte, and the end, may become the rewrite, and each of its groups the whole text."""
    longest = max(map(len, x.value.reshape(-1).tolist()), default=0)
    return (x.bytes + x.elements) * (1 + len(rewrite) + rewrite.count(b"\\") * longest)


@rule("ngrams")
def _ngrams(
    values: Read, splits: Read, *, widths: tuple[int, ...], separator: bytes, left_pad: bytes = b"", right_pad: bytes = b"",
    pad_width: int = 0, **attrs: Any,
) -> int:  # fmt: skip
    total = 0
    longest = (
        max(map(len, values.value.reshape(-1).tolist()), default=0) + len(left_pad) + len(right_pad) + len(separator)
    )
    for width in widths:
        pad = min(width - 1 if pad_width < 0 else pad_width, max(width - 1, 0))
        total += (values.elements + 2 * pad * splits.elements) * (_POINTER + width * longest)
    return total


@rule("ngrams_join", "ngrams_join_dense")
def _ngrams_join(values: Read, *splits: Read, width: int, separator: bytes) -> int:
    longest = max(map(len, values.value.reshape(-1).tolist()), default=0)
    return values.elements * (_POINTER + min(width, values.elements) * (longest + len(separator)))


@rule("string_format")
def _string_format(*xs: Read, template: bytes, **attrs: Any) -> int:
    return len(template) + sum(400 * (read.elements + 8) + 4 * read.bytes for read in xs)


@rule("ragged_range")
def _ragged_range(starts: Read, limits: Read, deltas: Read, *, dtype: str) -> int | None:
    rows = np.broadcast_arrays(*(np.asarray(read.value, np.float64) for read in (starts, limits, deltas)))
    with np.errstate(all="ignore"):
        counts = np.ceil((rows[1] - rows[0]) / rows[2])
    total = float(np.maximum(np.nan_to_num(counts, nan=0.0), 0).sum())
    return int(16 * (total + 1 + counts.size)) if math.isfinite(total) else None


@rule("segment_reduce", "sparse_segment_reduce")
def _segment_reduce(data: Read, ids: Read, *rest: Read, **attrs: Any) -> int:
    """As many rows as the largest id."""
    rows = max(read.largest() for read in (ids, *rest)) + 1
    shape = data.value.shape
    return 16 * max(rows, 1) * max(math.prod(shape[1:]), 1) + data.bytes


@rule("ragged_to_tensor")
def _ragged_to_tensor(values: Read, default: Read, *rest: Read, **attrs: Any) -> int:
    sizes = [read.value for read in rest if isinstance(read.value, int)]
    largest = max((read.largest() for read in rest if not isinstance(read.value, int)), default=0)
    items = max(values.bytes + _POINTER * values.elements, 1)
    return math.prod(size if size >= 0 else max(largest, 1) for size in sizes or [-1] * len(rest)) * _POINTER + items


@rule(
    "sparse_fill_empty_rows",
    "sparse_reduce",
    "sparse_matmul",
    "sparse_bincount",
    "ragged_bincount",
    "ragged_fill_empty_rows",
)
def _of_shape(*operands: Read, **attrs: Any) -> int:
    """A dense shape among the operands is the result's: bounded by the product of the largest numbers."""
    sizes = [read.largest(default=1) for read in operands if _is_integer(read.value)]
    return _POINTER * math.prod(max(size, 1) for size in sizes) + sum(read.bytes for read in operands) * _GROWTH


@rule("decode_image", "decompress", "parse_examples", "sparse_cross", "ragged_cross", "ragged_from_variant")
def _unbounded(*operands: Read, **attrs: Any) -> None:
    """A few input bytes may expand without bound."""


def _is_integer(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype != object
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() and not value.is_complex()
    return isinstance(value, int)
