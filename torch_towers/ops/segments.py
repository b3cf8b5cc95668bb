"""Segment reductions and histograms, with the summation order of TensorFlow's CPU kernels."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Spec, op
from torch_towers.kernels import sparse
from torch_towers.kernels.fast_path import plain, readable
from torch_towers.ops.rows import ranges, rows_of_values
from torch_towers.ops.sizes import rank_of

_REDUCTIONS = {"sum": "sum", "prod": "prod", "max": "amax", "min": "amin"}
_CHUNK = 8
_LONG = 16  # rows of a segment above which Eigen reduces in four accumulators
_SCALED = 10  # TensorFlow multiplies by 1/n for segments with fewer rows, and divides by n otherwise


def _rows_of(data: Spec, rows: int | str | None = None, skip: int = 1) -> list[Spec]:
    return [(data[0], None if data[1] is None else (rows, *data[1][skip:]))]


def _sorted_spec(data: Spec, segment_ids: Spec, **attrs: Any) -> list[Spec]:
    return _rows_of(data)


def _reduce(data: Tensor, ids: Tensor, count: int, reduction: str, default: float | int) -> Tensor:
    """Reduces rows of `data` by id, in order; a segment without rows gets `default`."""
    index = ids.reshape(-1, *[1] * (data.ndim - 1)).expand_as(data)
    if reduction == "sum":
        # -0.0 is the neutral element of addition: a lone -0.0 stays -0.0
        start = -0.0 if data.is_floating_point() else 0
        out = torch.full((count, *data.shape[1:]), start, dtype=data.dtype, device=data.device).index_add(0, ids, data)
    else:
        out = torch.full(
            (count, *data.shape[1:]), 1 if reduction == "prod" else 0, dtype=data.dtype, device=data.device
        )
        out = out.scatter_reduce(0, index, data, _REDUCTIONS[reduction], include_self=reduction == "prod")
    filled = torch.zeros(count, dtype=torch.bool, device=data.device).index_fill(0, ids, True)
    return torch.where(filled.reshape(-1, *[1] * (data.ndim - 1)), out, torch.full_like(out, default))


def _check_sorted(segment_ids: Tensor, rows: int) -> None:
    if segment_ids.numel() != rows:
        raise InputError("segment_ids should be the same size as dimension 0 of input.")
    if segment_ids.numel() and int(segment_ids[0]) < 0:
        raise InputError("segment ids must be >= 0")
    if bool((segment_ids[1:] < segment_ids[:-1]).any()):
        raise InputError("segment ids are not increasing")


@op(stage="early", infer=_sorted_spec)
def segment_reduce(
    data: Tensor, segment_ids: Tensor, *, reduction: Literal["sum", "mean", "prod", "max", "min"]
) -> Tensor:
    """Reduces the rows of each segment, for ascending ids: `[n, ...], [n] -> [last id + 1, ...]`.

    `reduction` is "sum", "mean", "prod", "max" or "min". A segment without rows is 0 ("prod": 1).
    Errors: `InputError` for descending or negative ids. Source: tf.raw_ops.SegmentSum and its variants.
    """
    _check_sorted(segment_ids, data.shape[0])
    ids = segment_ids.to(torch.int64)
    count = int(ids[-1]) + 1 if ids.numel() else 0
    if reduction in ("max", "min"):
        return _reduce(data, ids, count, reduction, 0)
    rows = torch.bincount(ids, minlength=count).reshape(-1, *[1] * (data.ndim - 1))
    if reduction == "prod":
        return _in_packets(_reduce(data, ids, count, "prod", 1), data, ids, rows, reduction)
    total = _reduce(data, ids, count, "sum", 0)
    total = torch.where(
        rows > 1, total + 0, total
    )  # TensorFlow copies a single row, and adds several to 0.0, which loses -0.0
    if reduction == "sum":
        return _in_packets(total, data, ids, rows, reduction)
    rows = rows.clamp(min=1).to(data.dtype)
    return total / rows if data.is_floating_point() else torch.div(total, rows, rounding_mode="trunc")


def _in_packets(plain: Tensor, data: Tensor, ids: Tensor, rows: Tensor, reduction: str) -> Tensor:
    """`plain` with long segments reduced in the order of Eigen's packets, where Eigen uses them.

    Eigen (256-bit vectors, as TensorFlow is built for x86) reduces 16 rows or more in four interleaved accumulators,
    combines them, and adds the remaining rows; columns that do not fill a packet are reduced sequentially.
    """
    lanes = {torch.float32: 8, torch.float64: 4}.get(data.dtype, 0)
    columns = math.prod(data.shape[1:]) // lanes * lanes if lanes else 0
    if not columns or not bool((rows >= _LONG).any()):
        return plain
    flat, out = data.reshape(data.shape[0], -1), plain.reshape(plain.shape[0], -1).clone()
    lengths = rows.reshape(-1)
    position = ranges(lengths[lengths > 0])
    quads = position < (lengths // 4 * 4)[ids]
    neutral = 1 if reduction == "prod" else 0
    join = torch.mul if reduction == "prod" else torch.add
    accumulators = _reduce(
        flat[quads, :columns], ids[quads] * 4 + position[quads] % 4, 4 * len(lengths), reduction, neutral
    )
    first, second, third, fourth = accumulators.reshape(-1, 4, columns).unbind(1)
    total = join(join(join(first, second), third), fourth)
    for step in range(3):
        late = (~quads & (position - (lengths // 4 * 4)[ids] == step)).nonzero().reshape(-1)
        total = total.index_copy(0, ids[late], join(total[ids[late]], flat[late, :columns]))
    long = lengths >= _LONG
    out[long, :columns] = total[long]
    return out.reshape(plain.shape)


def _lowest(dtype: torch.dtype) -> float | int:
    return torch.finfo(dtype).min if dtype.is_floating_point else torch.iinfo(dtype).min


def _highest(dtype: torch.dtype) -> float | int:
    return torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max


@op()
def unsorted_segment_reduce(
    data: Tensor, segment_ids: Tensor, num_segments: int, *, reduction: Literal["sum", "mean", "prod", "max", "min"]
) -> Tensor:
    """Reduces the rows of each segment, for ids in any order: `[*ids, ...], [*ids] -> [num_segments, ...]`.

    `reduction` is "sum", "prod", "max" or "min". Negative ids are ignored. A segment without rows gets the neutral
    element of the reduction: 0, 1, the lowest or the highest number of the dtype. Errors: `InputError` for an id of
    `num_segments` or more. Source: tf.raw_ops.UnsortedSegmentSum and its variants.
    """
    inner = data.shape[segment_ids.ndim :]
    ids = segment_ids.reshape(-1).to(torch.int64)
    count = int(num_segments) if isinstance(num_segments, Tensor) else num_segments
    if readable(ids):
        wrong = (ids >= count).nonzero()
        if wrong.numel():
            at = int(wrong[0])
            raise InputError(f"segment_ids[{at}] = {int(ids[at])} is out of range [0, {count})")
    rows = data.reshape(ids.shape[0], *inner)
    ids = torch.where(ids < 0, count, ids)  # ignored rows go to an extra segment, dropped at the end
    shape, default = (count + 1, *inner), {"sum": 0, "prod": 1, "max": _lowest, "min": _highest}[reduction]
    fill = default(data.dtype) if callable(default) else default
    out = torch.full(shape, fill, dtype=data.dtype, device=data.device)
    if reduction == "sum":
        return out.index_add(0, ids, rows)[:count]
    index = ids.reshape(-1, *[1] * len(inner)).expand_as(rows)
    return out.scatter_reduce(0, index, rows, _REDUCTIONS[reduction], include_self=True)[:count]


def _plan_spec(indices: Spec, segment_ids: Spec, *num_segments: Spec) -> list[Spec]:
    rows = indices[1] if indices[1] is not None else (None,)
    return [("int64", rows), ("int64", (None,)), ("int64", (None,))]


@op(stage="early", infer=_plan_spec)
def segment_chunks(indices: Tensor, segment_ids: Tensor, *num_segments: int) -> tuple[Tensor, Tensor, Tensor]:
    """The summation order of ascending segments: `[k], [k] -> chunk of each row [k], segment of each chunk, rows of
    each segment`.

    It depends on integers only and runs before the encoder, where `sparse_segment_reduce` then has sizes that follow
    from its operands. Without `num_segments` the last id determines the number of segments. Errors: `InputError` for
    ids out of order or range.
    """
    last = int(segment_ids[-1]) + 1 if segment_ids.numel() else 0
    count = int(num_segments[0]) if num_segments else last
    if segment_ids.numel() == indices.shape[0] and count >= 0:
        found = sparse.chunks(segment_ids, count)
        if found is not None:
            return found
    _check_sorted(segment_ids, indices.shape[0])
    ids = segment_ids.to(torch.int64)
    if last > count:
        raise InputError(f"segment ids must be < {count}" if num_segments else "segment ids must be >= 0")
    lengths = torch.bincount(ids, minlength=count)
    return (*_chunks(ids, lengths), lengths)


def _sparse_spec(data: Spec, indices: Spec, chunks: Spec, owners: Spec, lengths: Spec, **attrs: Any) -> list[Spec]:
    return [(data[0], None if data[1] is None or lengths[1] is None else (lengths[1][0], *data[1][1:]))]


@op(infer=_sparse_spec)
def sparse_segment_reduce(
    data: Tensor,
    indices: Tensor,
    chunks: Tensor,
    owners: Tensor,
    lengths: Tensor,
    *,
    reduction: Literal["sum", "mean", "sqrtn"],
) -> Tensor:
    """Reduces the selected rows of each segment: `[n, ...], [k], [k], [c], [segments] -> [segments, ...]`.

    `chunks`, `owners` and `lengths` come from `segment_chunks`; `reduction` is "sum", "mean" or "sqrtn". A segment
    without rows is 0. Errors: `InputError` for indices out of range. Follows the summation order of
    tf.raw_ops.SparseSegmentSum: first up to nine rows, then groups of eight. Source: tf.raw_ops.SparseSegmentSum and
    its variants.
    """
    if plain(data, indices):
        found = sparse.segment_sums(data, indices, lengths, reduction)
        if found is not None:
            return found
    rows = indices.to(torch.int64)
    if readable(rows) and not _within(rows, data.shape[0]):
        at = int(((rows < 0) | (rows >= data.shape[0])).nonzero()[0])
        raise InputError(f"indices[{at}] == {int(rows[at])} out of range [0, {data.shape[0]})")
    picked = data.index_select(0, rows)
    wide = picked.float() if data.dtype in (torch.float16, torch.bfloat16) else picked
    total = _reduce(_reduce(wide, chunks, owners.shape[0], "sum", 0), owners, lengths.shape[0], "sum", 0)
    if reduction != "sum":
        divisor = lengths.clamp(min=1).to(torch.float64)
        divisor = (divisor.sqrt() if reduction == "sqrtn" else divisor).to(total.dtype)
        per_row = (slice(None), *[None] * (data.ndim - 1))
        few, divisor = (lengths < _SCALED)[per_row], divisor[per_row]
        scaled = total * (1 / divisor)
        total = scaled if readable(few) and bool(few.all()) else torch.where(few, scaled, total / divisor)
    return total.to(data.dtype)


def _within(rows: Tensor, count: int) -> bool:
    if not rows.numel():
        return True
    low, high = torch.aminmax(rows)
    return int(low) >= 0 and int(high) < count


def _chunks(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The chunk of each row, and the segment of each chunk: chunks are summed separately, then added up."""
    # A segment of n rows has a chunk of n % 8 rows (8 or 9 if that is 0 or 1), then chunks of 8.
    remainder = lengths % _CHUNK
    head = torch.where(remainder < 2, remainder + _CHUNK, remainder).minimum(lengths)
    chunks = torch.where(lengths > 0, 1 + (lengths - head) // _CHUNK, 0)
    position = ranges(lengths)
    within = torch.where(position < head[ids], 0, 1 + (position - head[ids]).div(_CHUNK, rounding_mode="floor"))
    return (chunks.cumsum(0) - chunks)[ids] + within, torch.repeat_interleave(torch.arange(lengths.shape[0]), chunks)


# -- histograms ---------------------------------------------------------------------------------------------------------


def _weighted(values: Tensor, weights: Tensor, binary_output: bool) -> Tensor:
    if binary_output or weights.numel() == 0:
        return torch.ones(values.shape, dtype=weights.dtype, device=values.device)
    return weights.reshape(-1)


def _histogram(
    rows: Tensor | None, values: Tensor, weights: Tensor, size: int, count: int, binary_output: bool
) -> Tensor:
    """`[count, size]` sums of weights by row and value; values of `size` or more are ignored."""
    if readable(values) and bool((values < 0).any()):
        raise InputError("Input must be non-negative")
    bins = values.to(torch.int64).clamp(max=size)
    width = size + 1
    flat = bins if rows is None else bins + rows * width
    out = torch.zeros(count * width, dtype=weights.dtype, device=values.device)
    source = _weighted(values, weights, binary_output)
    out = out.scatter(0, flat, source) if binary_output else out.index_add(0, flat, source)
    return out.reshape(count, width)[:, :size]


@op()
def bincount(values: Tensor, size: int, weights: Tensor, *, binary_output: bool, flat: bool = False) -> Tensor:
    """The count, or total weight, of each of `0 .. size-1`: `[n] -> [size]` or `[rows, n] -> [rows, size]`.

    `flat` counts all rows together. `weights` has the shape of `values`, or no elements; the result has its dtype.
    `binary_output`: 1 if a value occurs. Errors: `InputError` for negative values. Source: tf.raw_ops.DenseBincount,
    tf.raw_ops.Bincount.
    """
    size = int(size) if isinstance(size, Tensor) else size
    if values.ndim != 2 or flat:
        return _histogram(None, values.reshape(-1), weights, size, 1, binary_output)[0]
    count = values.shape[0]
    if not weights.numel():
        found = sparse.histogram(values, None, size, weights.dtype, binary_output)
        if found is not None:
            return found
    rows = torch.arange(count, device=values.device).reshape(-1, 1).expand_as(values).reshape(-1)
    return _histogram(rows, values.reshape(-1), weights, size, count, binary_output)


def _ragged_bincount_spec(splits: Spec, values: Spec, size: Spec, weights: Spec, **attrs: Any) -> list[Spec]:
    return [(weights[0], (None, None))]


@op(stage="early", infer=_ragged_bincount_spec)
def ragged_bincount(splits: Tensor, values: Tensor, size: int, weights: Tensor, *, binary_output: bool) -> Tensor:
    """`bincount` of each ragged row: row splits `[rows + 1]` and values `[n] -> [rows, size]`.

    Errors: `InputError` for negative values. Source: tf.raw_ops.RaggedBincount.
    """
    if not weights.numel():
        found = sparse.histogram(values, splits, int(size), weights.dtype, binary_output)
        if found is not None:
            return found
    count = splits.shape[0] - 1
    rows = rows_of_values(splits, values.shape[0])
    return _histogram(rows, values, weights, int(size), count, binary_output)


def _sparse_bincount_spec(
    indices: Spec, values: Spec, dense_shape: Spec, size: Spec, weights: Spec, **attrs: Any
) -> list[Spec]:
    rank = rank_of(dense_shape)
    return [(weights[0], (None,) * rank if isinstance(rank, int) else None)]


@op(stage="early", infer=_sparse_bincount_spec)
def sparse_bincount(
    indices: Tensor, values: Tensor, dense_shape: Tensor, size: int, weights: Tensor, *, binary_output: bool
) -> Tensor:
    """`bincount` of each sparse row: indices `[n, 1 or 2]` and values `[n] -> [size]` or `[rows, size]`.

    Errors: `InputError` for negative values. Source: tf.raw_ops.SparseBincount.
    """
    if dense_shape.shape[0] == 1:
        return _histogram(None, values, weights, int(size), 1, binary_output)[0]
    return _histogram(indices[:, 0], values, weights, int(size), int(dense_shape[0]), binary_output)
