"""Segment reductions and histograms."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Dimensions, Value
from porting.converters.array import shaped

Emit = ConvertingEmitter


def _sorted(op: str, reduction: str) -> None:
    @converter(op)
    def convert(t: Emit, data: Any, segment_ids: Any) -> Any:
        return t.segment_reduce(data, segment_ids, reduction=reduction)


def _unsorted(op: str, reduction: str) -> None:
    @converter(op)
    def convert(t: Emit, data: Any, segment_ids: Any, num_segments: Dimensions) -> Any:
        return t.unsorted_segment_reduce(data, segment_ids, *num_segments, reduction=reduction)


def _sparse(op: str, reduction: str) -> None:
    @converter(op, ignores=("sparse_gradient",))
    def convert(t: Emit, data: Any, indices: Any, segment_ids: Any) -> Any:
        return t.sparse_segment_reduce(data, indices, *t.segment_chunks(indices, segment_ids), reduction=reduction)

    @converter(f"{op}WithNumSegments", ignores=("sparse_gradient",))
    def convert_sized(t: Emit, data: Any, indices: Any, segment_ids: Any, num_segments: Dimensions) -> Any:
        plan = t.segment_chunks(indices, segment_ids, *num_segments)
        return t.sparse_segment_reduce(data, indices, *plan, reduction=reduction)


for _name in ("sum", "mean", "prod", "max", "min"):
    _sorted(f"Segment{_name.title()}", _name)
for _name in ("sum", "prod", "max", "min"):
    _unsorted(f"UnsortedSegment{_name.title()}", _name)
for _name, _title in (("sum", "Sum"), ("mean", "Mean"), ("sqrtn", "SqrtN")):
    _sparse(f"SparseSegment{_title}", _name)


@converter("Bincount")
def bincount(t: Emit, values: Any, size: Dimensions, weights: Any) -> Any:
    return _counted(t, t.bincount(values, *size, weights, binary_output=False, flat=True), [], size, weights)


@converter("DenseBincount")
def dense_bincount(t: Emit, values: Any, size: Dimensions, weights: Any, *, binary_output: bool = False) -> Any:
    found = t.bincount(values, *size, weights, binary_output=binary_output)
    return found if values.shape is None else _counted(t, found, list(values.shape[:-1]), size, weights)


def _counted(t: Emit, found: Any, rows: list[Any], size: Dimensions, weights: Any) -> Any:
    """A histogram with a known rank, even if the graph computes the number of bins."""
    bins = size[0]
    known = isinstance(bins, int) or (isinstance(bins, Value) and bins.dtype == "size")
    return shaped(t, found, [*rows, t.symbol(bins) if known else None], weights.dtype)


@converter("RaggedBincount")
def ragged_bincount(
    t: Emit, splits: Any, values: Any, size: Dimensions, weights: Any, *, binary_output: bool = False
) -> Any:
    return t.ragged_bincount(splits, values, *size, weights, binary_output=binary_output)


@converter("SparseBincount")
def sparse_bincount(
    t: Emit, indices: Any, values: Any, shape: Any, size: Dimensions, weights: Any, *, binary_output: bool = False
) -> Any:
    return t.sparse_bincount(indices, values, shape, *size, weights, binary_output=binary_output)
