"""Sparse tensors, as three tensors each like in TensorFlow."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.shape_arithmetic import as_dimensions
from porting.conversion.values import Constant, Dimensions, constant
from porting.errors import PortingError

Emit = ConvertingEmitter


@converter("SparseReshape", outputs=("output_indices", "output_shape"))
def sparse_reshape(t: Emit, indices: Any, shape: Any, new_shape: Any) -> Any:
    return t.sparse_reshape(indices, shape, new_shape)


@converter("SparseToDense")
def sparse_to_dense(
    t: Emit, indices: Any, shape: Dimensions, values: Any, default: Any, *, validate_indices: bool = True
) -> Any:
    return t.sparse_to_dense(indices, values, default, *shape, validate=validate_indices)


@converter(
    "SparseFillEmptyRows", outputs=("output_indices", "output_values", "empty_row_indicator", "reverse_index_map")
)
def sparse_fill_empty_rows(t: Emit, indices: Any, values: Any, shape: Any, default: Any) -> Any:
    return t.sparse_fill_empty_rows(indices, values, shape, default)


@converter("SparseReorder", outputs=("output_indices", "output_values"))
def sparse_reorder(t: Emit, indices: Any, values: Any, shape: Any) -> Any:
    return t.sparse_reorder(indices, values, shape)


@converter("SparseConcat", outputs=("output_indices", "output_values", "output_shape"))
def sparse_concat(t: Emit, *operands: Any, concat_dim: int) -> Any:
    count = len(operands) // 3
    parts = [tuple(map(t.tensor, operands[start : start + count])) for start in (0, count, 2 * count)]
    return t.sparse_concat(*parts, axis=concat_dim)


@converter("SparseSlice", outputs=("output_indices", "output_values", "output_shape"))
def sparse_slice(t: Emit, indices: Any, values: Any, shape: Any, start: Any, size: Any) -> Any:
    return t.sparse_slice(indices, values, shape, start, size)


@converter("SparseSplit", outputs=("output_indices", "output_values", "output_shape"))
def sparse_split(t: Emit, axis: Dimensions, indices: Any, values: Any, shape: Any, *, num_split: int) -> Any:
    parts = list(t.sparse_split(indices, values, shape, *axis, count=num_split))
    return parts[:num_split], parts[num_split : 2 * num_split], parts[2 * num_split :]


@converter("SparseTensorDenseMatMul")
def sparse_matmul(
    t: Emit, indices: Any, values: Any, shape: Any, dense: Any, *, adjoint_a: bool = False, adjoint_b: bool = False
) -> Any:
    return t.sparse_matmul(indices, values, shape, dense, adjoint_a=adjoint_a, adjoint_b=adjoint_b)


@converter("SparseTensorDenseAdd")
def sparse_tensor_dense_add(t: Emit, indices: Any, values: Any, shape: Any, dense: Any) -> Any:
    return t.sparse_add_to_dense(indices, values, shape, dense)


@converter("SparseAdd", outputs=("sum_indices", "sum_values", "sum_shape"))
def sparse_add(t: Emit, *operands: Any) -> Any:
    return t.sparse_add(*operands)


def _elementwise(name: str) -> None:
    @converter(f"SparseDenseCwise{name.title()}")
    def convert(t: Emit, indices: Any, values: Any, shape: Any, dense: Any) -> Any:
        return t.sparse_dense_values(indices, values, shape, dense, function=name)


def _reduction(name: str) -> None:
    @converter(f"SparseReduce{name.title()}")
    def dense(t: Emit, indices: Any, values: Any, shape: Any, axes: tuple[int, ...], *, keep_dims: bool = False) -> Any:
        return t.sparse_reduce(indices, values, shape, axes=axes, keep_dims=keep_dims, reduction=name)

    @converter(f"SparseReduce{name.title()}Sparse", outputs=("output_indices", "output_values", "output_shape"))
    def sparse(
        t: Emit, indices: Any, values: Any, shape: Any, axes: tuple[int, ...], *, keep_dims: bool = False
    ) -> Any:
        return t.sparse_reduce_sparse(indices, values, shape, axes=axes, keep_dims=keep_dims, reduction=name)


for _name in ("add", "mul", "div"):
    _elementwise(_name)
for _name in ("sum", "max"):
    _reduction(_name)


def _cross_columns(t: Emit, operands: tuple[Any, ...], count: int) -> list[tuple[Any, ...]]:
    """The operands of a cross as four lists: indices, values, shapes, dense columns."""
    tensors = tuple(map(t.tensor, operands))
    return [tensors[:count], tensors[count : 2 * count], tensors[2 * count : 3 * count], tensors[3 * count :]]


@converter("SparseCross", outputs=("output_indices", "output_values", "output_shape"),
           ignores=("sparse_types", "dense_types", "out_type", "internal_type"))  # fmt: skip
def sparse_cross(t: Emit, *operands: Any, N: int, hashed_output: bool, num_buckets: int, hash_key: int) -> Any:
    columns = _cross_columns(t, operands, N)
    if hashed_output:
        return t.sparse_cross_keyed(*columns, buckets=num_buckets, hash_key=hash_key)
    return t.sparse_cross(*columns, constant(b"_X_"))


@converter(
    "SparseCrossV2",
    outputs=("output_indices", "output_values", "output_shape"),
    ignores=("sparse_types", "dense_types"),
)
def sparse_cross_v2(t: Emit, *operands: Any, N: int) -> Any:
    *columns, separator = operands
    return t.sparse_cross(*_cross_columns(t, tuple(columns), N), separator)


@converter("SparseCrossHashed", outputs=("output_indices", "output_values", "output_shape"),
           ignores=("sparse_types", "dense_types"), refuses="a `strong_hash` that the graph computes")  # fmt: skip
def sparse_cross_hashed(t: Emit, *operands: Any, N: int) -> Any:
    *columns, buckets, strong, salt = operands
    if not isinstance(strong, Constant):
        raise PortingError(f"{t.scope!r} computes whether to hash strongly; only a constant can be ported")
    (size,) = as_dimensions(buckets)
    return t.sparse_cross_hashed(*_cross_columns(t, tuple(columns), N), size, salt, strong=bool(strong.python()))
