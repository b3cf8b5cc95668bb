"""Ops whose result sizes depend on values: where, unique, partition, stitch. All of them accept strings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Spec, op, returns
from torch_towers.kernels import sparse
from torch_towers.ops.rows import Rows, distinct, take


def _where_spec(x: Spec) -> list[Spec]:
    return [("int64", (None, None if x[1] is None else len(x[1])))]


@op(stage="early", infer=_where_spec)
def where_true(x: Tensor) -> Tensor:
    """The indices of the nonzero elements in row-major order: `[...] -> [n, rank]` int64.

    Source: tf.raw_ops.Where.
    """
    return torch.nonzero(x)


def _repeat_spec(x: Spec, counts: Spec) -> list[Spec]:
    return [(x[0], None if x[1] is None else (None, *x[1][1:]))]


@op(stage="early", infer=_repeat_spec)
def repeat_rows(x: Rows, counts: Tensor) -> Rows:
    """Repeats each row as often as its count says, and not at all below 0: `[n, ...], [n] -> [sum of counts, ...]`.

    Source: tf.repeat.
    """
    if isinstance(x, Tensor):
        return x.repeat_interleave(counts.clamp(min=0), 0)
    return np.repeat(x, counts.clamp(min=0).numpy(), 0)


def _unique_spec(x: Spec, *, axis: int | None, dtype: str) -> list[Spec]:
    at = axis or 0
    shape = None if x[1] is None else tuple(None if i == at % len(x[1]) else size for i, size in enumerate(x[1]))
    length = None if x[1] is None else x[1][at]
    return [(x[0], shape), (dtype, (length,)), (dtype, (None,))]


@op(stage="early", infer=_unique_spec)
def unique(x: Rows, *, axis: int | None, dtype: Dtype) -> tuple[Rows, Tensor, Tensor]:
    """The unique elements in order of first occurrence, the index of each element among them, and their counts.

    `[n] -> [k], [n], [k]`; with `axis`, slices along it are compared instead of elements. `dtype` is that of indices
    and counts. Every NaN is distinct. Source: tf.raw_ops.UniqueWithCountsV2.
    """
    if not isinstance(x, Tensor):
        if x.ndim != 1:
            raise InputError(f"unique expects a 1D vector of strings, not shape {x.shape}")
        return _unique_strings(x, torch_dtype(dtype))
    found = sparse.distinct(x)
    if found is not None:
        return found[0], found[1].to(torch_dtype(dtype)), found[2].to(torch_dtype(dtype))
    at = axis or 0
    rows = x if x.ndim == 1 else x.movedim(at, 0).reshape(x.shape[at], -1)
    _, inverse, counts = distinct(rows, None if x.ndim == 1 else 0)
    position = torch.arange(inverse.shape[0], device=x.device)
    first = torch.full(counts.shape, inverse.shape[0], device=x.device).scatter_reduce(0, inverse, position, "amin")
    order = first.argsort()
    place = torch.empty_like(order).scatter(0, order, torch.arange(order.shape[0], device=x.device))
    return x.index_select(at, first[order]), place[inverse].to(torch_dtype(dtype)), counts[order].to(torch_dtype(dtype))


def _unique_strings(x: np.ndarray[Any, Any], dtype: torch.dtype) -> tuple[Rows, Tensor, Tensor]:
    places: dict[bytes, int] = {}
    index = [places.setdefault(item, len(places)) for item in x.tolist()]
    positions = torch.tensor(index, dtype=torch.int64)
    return strings(list(places)), positions.to(dtype), torch.bincount(positions, minlength=len(places)).to(dtype)


def _partition_spec(data: Spec, partitions: Spec, *, count: int) -> list[Spec]:
    known = data[1] is not None and partitions[1] is not None
    shape = (None, *data[1][len(partitions[1]) :]) if known else None  # type: ignore[index,arg-type]
    return [(data[0], shape)] * count


@op(stage="early", infer=_partition_spec)
def dynamic_partition(data: Rows, partitions: Tensor, *, count: int) -> tuple[Rows, ...]:
    """The rows of `data` distributed to `count` parts: `[*p, ...], [*p] -> count x [n, ...]`.

    Errors: `InputError` for a partition outside `[0, count)`. Source: tf.raw_ops.DynamicPartition.
    """
    ids = partitions.reshape(-1)
    outside = ((ids < 0) | (ids >= count)).nonzero()
    if outside.numel():
        at = int(outside[0])
        raise InputError(f"partitions[{at}] = {int(ids[at])} is not in [0, {count})")
    rows = data.reshape(ids.shape[0], *data.shape[partitions.ndim :])
    return tuple(take(rows, (ids == part).nonzero().reshape(-1)) for part in range(count))


def _stitch_spec(indices: tuple[Spec, ...], data: tuple[Spec, ...], sources: Spec) -> list[Spec]:
    for index, values in zip(indices, data, strict=True):
        if index[1] is not None and values[1] is not None:
            count = sources[1][0] if sources[1] is not None else None
            return [(values[0], (count, *values[1][len(index[1]) :]))]
    return [(data[0][0], None)]


@op(stage="early", infer=returns(("int64", (None,))))
def stitch_sources(indices: tuple[Tensor, ...]) -> Tensor:
    """For each row of a stitch, the index among the joined rows that is its source, the last one winning: `n x [*i] ->
    [max index + 1]`; -1: none.

    Errors: `InputError` for negative indices.
    """
    flat = torch.cat([index.reshape(-1) for index in indices]).to(torch.int64)
    if bool((flat < 0).any()):
        raise InputError(f"indices[{int((flat < 0).nonzero()[0])}] is out of range: it is negative")
    count = int(flat.max()) + 1 if flat.numel() else 0
    return torch.full((count,), -1, dtype=torch.int64).scatter_reduce(0, flat, torch.arange(flat.shape[0]), "amax")


@op(infer=_stitch_spec)
def dynamic_stitch(indices: tuple[Tensor, ...], data: tuple[Rows, ...], sources: Tensor) -> Rows:
    """Rows placed by index, later ones over earlier ones: `n x [*i], n x [*i, ...], [m] -> [m, ...]`.

    `sources` is the result of `stitch_sources`, computed before the encoder. Rows without an index are 0 or b"".
    Source: tf.raw_ops.DynamicStitch, tf.raw_ops.ParallelDynamicStitch.
    """
    inner = data[0].shape[indices[0].ndim :]
    rows = [
        part.reshape(-1 if 0 not in inner else index.numel(), *inner) for index, part in zip(indices, data, strict=True)
    ]
    named = sources >= 0
    first = data[0]
    if isinstance(first, Tensor):
        joined = torch.cat([*rows, first.new_zeros((1, *inner))])  # type: ignore[list-item]
        return joined.index_select(0, torch.where(named, sources, joined.shape[0] - 1))
    out = np.full((sources.shape[0], *inner), b"", object)
    out[named.numpy()] = np.concatenate(rows)[sources[named].numpy()]  # type: ignore[arg-type]
    return out


def _difference_spec(x: Spec, y: Spec, *, dtype: str) -> list[Spec]:
    return [(x[0], (None,)), (dtype, (None,))]


@op(stage="early", infer=_difference_spec)
def list_diff(x: Rows, y: Rows, *, dtype: Dtype) -> tuple[Rows, Tensor]:
    """The elements of `x` that are not in `y`, in order, and their positions: `[n], [m] -> [k], [k]`.

    Every NaN is distinct. Source: tf.raw_ops.ListDiff.
    """
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        kept = ~torch.isin(_comparable(x), _comparable(y))
    else:
        others = set[bytes](y.tolist())  # type: ignore[reportUnknownMemberType]
        kept = torch.tensor([item not in others for item in x.tolist()], dtype=torch.bool)  # type: ignore[reportUnknownMemberType]
    index = kept.nonzero().reshape(-1)
    found = _comparable(x).index_select(0, index).view(x.dtype) if isinstance(x, Tensor) else take(x, index)
    return found, index.to(torch_dtype(dtype))


def _comparable(x: Tensor) -> Tensor:
    """The bits of `x` in a dtype that torch can compare: unsigned integers as signed ones, bool as 0 and 1."""
    signed = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64, torch.bool: torch.uint8}
    return x.view(signed[x.dtype]) if x.dtype in signed else x
