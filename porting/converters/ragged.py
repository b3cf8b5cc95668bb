"""Ragged tensors: flat values with row splits."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.shape_arithmetic import as_dimensions
from porting.conversion.values import Dimensions, Value
from porting.converters.array import shaped
from torch_towers.graph.graph import Size

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
    sizes = () if shape.shape == () else as_dimensions(shape)  # a scalar -1: no sizes are given
    result = t.ragged_to_tensor(values, default, tuple(map(t.tensor, partitions)), *sizes, types=types)
    if not isinstance(result, Value) or not result.shape:
        return result
    return shaped(t, result, _known_sizes(t, result.shape, partitions[0], sizes))


def _known_sizes(t: Emit, shape: tuple[Size, ...], rows: Any, sizes: Any) -> tuple[Size, ...]:
    """The shape of a padded tensor: the given sizes, and one symbol for the rows of all values with the same
    partition."""
    wanted = [size if isinstance(size, int) and size >= 0 else None for size in sizes]
    if len(wanted) == len(shape):
        shape = tuple(old if size is None else size for old, size in zip(shape, wanted, strict=True))
    if not isinstance(shape[0], str) or not isinstance(rows, Value):
        return shape
    return (t.parted_rows.setdefault(rows.ref, shape[0]), *shape[1:])


@converter("RaggedGather", outputs=("output_nested_splits", "output_dense_values"))
def ragged_gather(t: Emit, *operands: Any, PARAMS_RAGGED_RANK: int, OUTPUT_RAGGED_RANK: int) -> Any:
    *splits, values, indices = operands
    *nested, gathered = t.ragged_gather(tuple(map(t.tensor, splits)), values, indices, rank=OUTPUT_RAGGED_RANK)
    return nested, gathered


@converter("RaggedRange", outputs=("rt_nested_splits", "rt_dense_values"))
def ragged_range(t: Emit, starts: Any, limits: Any, deltas: Any, *, Tsplits: str = "int64") -> Any:
    return t.ragged_range(t.tensor(starts), t.tensor(limits), t.tensor(deltas), dtype=Tsplits)


@converter(
    "RaggedTensorToSparse", outputs=("sparse_indices", "sparse_values", "sparse_dense_shape"), ignores=("RAGGED_RANK",)
)
def ragged_to_sparse(t: Emit, *operands: Any) -> Any:
    *splits, values = operands
    return t.ragged_to_sparse(tuple(map(t.tensor, splits)), values)


@converter(
    "RaggedFillEmptyRows", outputs=("output_value_rowids", "output_values", "empty_row_indicator", "reverse_index_map")
)
def ragged_fill_empty_rows(t: Emit, rowids: Any, values: Any, rows: Dimensions, default: Any) -> Any:
    return t.ragged_fill_empty_rows(rowids, values, *rows, default)


@converter("RaggedCross", outputs=("output_values", "output_row_splits"),
           ignores=("sparse_values_types", "dense_types", "out_values_type"))  # fmt: skip
def ragged_cross(
    t: Emit,
    *operands: Any,
    Nsparse: int,
    input_order: Any,
    hashed_output: bool,
    num_buckets: int,
    hash_key: int,
    ragged_values_types: list[str],
    ragged_splits_types: list[str],
    out_row_splits_type: str,
) -> Any:
    groups, rest = [], list(map(t.tensor, operands))
    for count in (len(ragged_values_types), len(ragged_splits_types), Nsparse, Nsparse, Nsparse):
        groups.append(tuple(rest[:count]))
        rest = rest[count:]
    order = input_order.decode() if isinstance(input_order, bytes) else input_order
    return t.ragged_cross(*groups, tuple(rest), order=order, hashed=hashed_output, buckets=num_buckets, hash_key=hash_key,
                          splits=out_row_splits_type)  # fmt: skip


@converter("RaggedTensorToVariant", ignores=("RAGGED_RANK",))
def ragged_to_variant(t: Emit, *operands: Any, batched_input: bool) -> Any:
    *splits, values = map(t.tensor, operands)
    return t.ragged_to_variant(tuple(splits), values, batched=batched_input)


@converter("RaggedTensorFromVariant", outputs=("output_nested_splits", "output_dense_values"))
def ragged_from_variant(
    t: Emit, encoded: Any, *, input_ragged_rank: int, output_ragged_rank: int, Tvalues: str, Tsplits: str = "int64"
) -> Any:
    found = t.ragged_from_variant(
        encoded, inner=input_ragged_rank, rank=output_ragged_rank, dtype=Tvalues, splits=Tsplits
    )
    *nested, values = found if isinstance(found, tuple) else (found,)
    return nested, values
