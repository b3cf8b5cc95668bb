"""Where, unique, partition and stitch: their result sizes depend on values."""

from __future__ import annotations

from typing import Any

import numpy as np

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError

Emit = ConvertingEmitter


@converter("Where")
def where(t: Emit, x: Any) -> Any:
    return t.where_true(x)


@converter("Unique", outputs=("y", "idx"))
def unique(t: Emit, x: Any, *, out_idx: str = "int32") -> Any:
    return t.unique(x, axis=None, dtype=out_idx)[:2]


@converter("UniqueWithCounts", outputs=("y", "idx", "count"))
def unique_with_counts(t: Emit, x: Any, *, out_idx: str = "int32") -> Any:
    return t.unique(x, axis=None, dtype=out_idx)


@converter("UniqueV2", outputs=("y", "idx"), refuses="strings of rank 2 or more")
def unique_v2(t: Emit, x: Any, axis: np.ndarray, *, out_idx: str = "int32") -> Any:
    return t.unique(x, axis=_axis(t, x, axis), dtype=out_idx)[:2]


@converter("UniqueWithCountsV2", outputs=("y", "idx", "count"), refuses="strings of rank 2 or more")
def unique_with_counts_v2(t: Emit, x: Any, axis: np.ndarray, *, out_idx: str = "int32") -> Any:
    return t.unique(x, axis=_axis(t, x, axis), dtype=out_idx)


def _axis(t: Emit, x: Any, axis: np.ndarray[Any, Any]) -> int | None:
    """The axis, which TensorFlow passes as a vector with zero or one element."""
    if x.dtype == "string" and x.shape is not None and len(x.shape) != 1:
        raise PortingError(
            f"{t.scope!r} computes the unique rows of a {len(x.shape)}-d string tensor; only 1-d ones are supported"
        )
    return int(axis.reshape(-1)[0]) if axis.size else None


@converter("DynamicPartition", outputs=("outputs",))
def dynamic_partition(t: Emit, data: Any, partitions: Any, *, num_partitions: int) -> Any:
    return list(t.dynamic_partition(data, partitions, count=num_partitions))


@converter("DynamicStitch", "ParallelDynamicStitch")
def dynamic_stitch(t: Emit, *operands: Any) -> Any:
    count = len(operands) // 2
    indices, data = (tuple(map(t.tensor, part)) for part in (operands[:count], operands[count:]))
    return t.dynamic_stitch(indices, data, t.stitch_sources(indices))


@converter("ListDiff", outputs=("out", "idx"))
def list_diff(t: Emit, x: Any, y: Any, *, out_idx: str = "int32") -> Any:
    return t.list_diff(t.tensor(x), t.tensor(y), dtype=out_idx)
