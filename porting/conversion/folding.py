"""Folding: how large the result of an op on constants will be, before the op runs.

Where the op's shapes are known that is a product. Where they follow from values, or the result is strings, a rule of the op bounds
it; an op without a rule gives at most `_GROWTH` times what it reads. What has no bound is not run at port time.
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
"""Bytes: a constant larger than this is left to be computed at run time."""
READ_LIMIT = 1 << 26
"""Elements: a constant of more is not read at port time; one value may stand for a shape of any size."""
_GROWTH = 32
"""Unicode's normal forms make 18 bytes of one, offsets eight."""
_POINTER = 8


class Read(NamedTuple):
    """A constant operand as a rule sees it: its elements, the bytes of its strings or numbers, the value itself."""

    elements: int
    bytes: int
    value: Any

    def numbers(self) -> list[int]:
        """The elements as integers."""
        return [int(item) for item in np.asarray(self.value).reshape(-1).tolist()]


Rule = Callable[..., int | None]
_RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(ops, function))
        return function

    return add


def size_of(op: str, operands: Sequence[Any], attrs: dict[str, Any], specs: Any) -> int | None:
    """At most how many bytes the results of `op` on constants take; None where that is not known, or reading them is too long."""
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
    return 1024 + counted + _GROWTH * total


def is_splat(array: Any) -> bool:
    """Whether one element stands for many: such an array weighs nothing until it is stored."""
    strides = array.stride() if isinstance(array, torch.Tensor) else array.strides
    return any(stride == 0 and size > 1 for stride, size in zip(strides, array.shape, strict=True))


def is_large_splat(array: Any) -> bool:
    """Whether a constant weighs next to nothing here and very much in arithmetic."""
    return is_splat(array) and stored_bytes(array) > LIMIT


def stored_bytes(array: Any) -> int:
    """The bytes of a constant once it is written out."""
    return math.prod(array.shape) * (array.element_size() if isinstance(array, torch.Tensor) else _POINTER)


def _bytes(dtype: str | None, shape: Any) -> int | None:
    """The bytes of a result; None where it is of strings or of unknown shape."""
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
        return Read(operand.items.size, _POINTER * operand.items.size, operand.items)
    if not isinstance(operand, Constant):
        return Read(1, _POINTER, operand)
    array = operand.array
    if isinstance(array, torch.Tensor):
        return Read(array.numel(), array.numel() * array.element_size(), array)
    return Read(array.size, sum(map(len, array.reshape(-1).tolist())), array)


@rule("string_join")
def _string_join(*xs: Read, separator: bytes = b"") -> int:
    """A part of rank 0 is in every string."""
    count = max(read.elements for read in xs)
    return sum(count * (_POINTER + len(separator)) + read.bytes * (count if read.elements == 1 else 1) for read in xs)


@rule("reduce_join", "segment_join")
def _joined(x: Read, *rest: Read, separator: bytes = b"", **attrs: Any) -> int:
    segments = max((number for read in rest[1:] for number in read.numbers()), default=0)
    return x.bytes + x.elements * (_POINTER + len(separator)) + _POINTER * segments


@rule("as_string")
def _as_string(x: Read, *, width: int = -1, precision: int = -1, **attrs: Any) -> int:
    return x.elements * (400 + max(width, 0) + max(precision, 0)) + x.bytes


@rule("regex_replace")
def _regex_replace(x: Read, *, rewrite: bytes, **attrs: Any) -> int:
    """Each byte, and the end, may become the rewrite, and each of its groups all the text."""
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
    """As many rows as the largest id says."""
    rows = max((number for read in (ids, *rest) for number in read.numbers()), default=0) + 1
    shape = data.value.shape
    return 16 * max(rows, 1) * max(math.prod(shape[1:]), 1) + data.bytes


@rule("ragged_to_tensor")
def _ragged_to_tensor(values: Read, default: Read, *rest: Read, **attrs: Any) -> int:
    sizes = [read.value for read in rest if isinstance(read.value, int)]
    largest = max((n for read in rest if not isinstance(read.value, int) for n in read.numbers()), default=0)
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
    """A dense shape among the operands is the result's: the product of the largest numbers of each bounds it."""
    sizes = [max(map(abs, read.numbers()), default=1) for read in operands if _is_integer(read.value)]
    return _POINTER * math.prod(max(size, 1) for size in sizes) + sum(read.bytes for read in operands) * _GROWTH


@rule("decode_image", "decompress", "parse_examples", "sparse_cross", "ragged_cross", "ragged_from_variant")
def _unbounded(*operands: Read, **attrs: Any) -> None:
    """A few bytes of these may stand for very many."""


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, torch.Tensor) and not value.is_floating_point())
