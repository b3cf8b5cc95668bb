"""Histograms as sparse tensors, and elementwise ops on sparse tensors."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.converters.array import items_of
from porting.errors import PortingError

Emit = ConvertingEmitter

_SPARSE = ("output_indices", "output_values", "output_dense_shape")


@converter("DenseCountSparseOutput", outputs=_SPARSE, ignores=("output_type",), refuses="values of unknown rank")
def dense_count(
    t: Emit, values: Any, weights: Any, *, binary_output: bool, minlength: int = -1, maxlength: int = -1
) -> Any:
    if values.shape is None:
        raise PortingError(f"{t.scope!r} counts values whose rank is known only at run time")
    rows, count = t.rows_of(values), t.sizes(values)[0] if len(values.shape) == 2 else 1
    return t.count_sparse(values, rows, count, weights, rank=len(values.shape), binary=binary_output, shortest=minlength,
                          longest=maxlength)  # fmt: skip


@converter("SparseCountSparseOutput", outputs=_SPARSE, ignores=("output_type",), refuses="shapes of unknown length")
def sparse_count(t: Emit, indices: Any, values: Any, shape: Any, weights: Any, *, binary_output: bool, minlength: int = -1,
                 maxlength: int = -1) -> Any:  # fmt: skip
    sizes = items_of(t, shape)
    flat = len(sizes) == 1
    rows = t.zeros_like(values) if flat else t.select(indices, 0, axis=1)
    return t.count_sparse(values, rows, 1 if flat else sizes[0], weights, rank=len(sizes), binary=binary_output, shortest=minlength,
                          longest=maxlength)  # fmt: skip


@converter("RaggedCountSparseOutput", outputs=_SPARSE, ignores=("output_type",))
def ragged_count(t: Emit, splits: Any, values: Any, weights: Any, *, binary_output: bool, minlength: int = -1,
                 maxlength: int = -1) -> Any:  # fmt: skip
    rows, count = t.rows_of_splits(splits, values), t.size_sub(t.size(splits, axis=0), 1)
    return t.count_sparse(
        values, rows, count, weights, rank=2, binary=binary_output, shortest=minlength, longest=maxlength
    )


@converter("SparseSoftmax")
def sparse_softmax(t: Emit, indices: Any, values: Any, shape: Any) -> Any:
    return t.sparse_softmax(t.tensor(indices), values, t.tensor(shape))


def _extreme(op: str, largest: bool) -> None:
    @converter(op, outputs=("output_indices", "output_values"))
    def convert(t: Emit, *operands: Any) -> Any:
        return t.sparse_extreme(*map(t.tensor, operands), largest=largest)


_extreme("SparseSparseMaximum", True)
_extreme("SparseSparseMinimum", False)
