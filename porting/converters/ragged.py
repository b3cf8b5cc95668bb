"""Ragged tensors: flat values with row splits."""

from __future__ import annotations

from typing import Any

from porting.convert import ConvertingEmitter, converter
from porting.sizes import as_sizes

Emit = ConvertingEmitter


@converter("RaggedTensorToTensor", refuses="row partitions other than ROW_SPLITS, VALUE_ROWIDS and FIRST_DIM_SIZE")
def ragged_tensor_to_tensor(
    t: Emit,
    shape: Any,
    values: Any,
    default: Any,
    *partitions: Any,
    row_partition_types: list[Any],
    num_row_partition_tensors: int,
) -> Any:
    types = tuple(kind.decode() if isinstance(kind, bytes) else kind for kind in row_partition_types)
    sizes = () if shape.shape == () else as_sizes(shape)  # a scalar -1: no size is asked for
    return t.ragged_to_tensor(values, default, tuple(map(t.tensor, partitions)), *sizes, types=types)
