"""Histograms as sparse tensors, and elementwise ops on sparse tensors. Weights keep their dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Spec, op
from torch_towers.ops.rows import distinct, ints, rows_of_values


def _count_spec(values: Spec, rows: Spec, count: Spec, weights: Spec, *, rank: int, **attrs: object) -> list[Spec]:
    return [("int64", (None, rank)), (weights[0], (None,)), ("int64", (rank,))]


@op(stage="early", infer=_count_spec)
def count_sparse(
    values: Tensor, rows: Tensor, count: int, weights: Tensor, *, rank: int, binary: bool, shortest: int, longest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The count, or total weight, of each value in each row, as a sparse tensor: `[n], [n], [] -> [k, rank], [k],
    [rank]`.

    `rank` 1 omits the row. `weights` has n elements or none; `binary` counts 1; values from `longest` on are ignored if
    it is above 0; the result has at least `shortest` columns. Errors: `InputError` for negative values.
    Source: tf.raw_ops.DenseCountSparseOutput, SparseCountSparseOutput, RaggedCountSparseOutput.
    """
    values, rows, weights = values.reshape(-1).to(torch.int64), rows.reshape(-1).to(torch.int64), weights.reshape(-1)
    if bool((values < 0).any()):
        raise InputError("Input values must all be non-negative")
    width = longest if longest > 0 else max(int(values.max()) + 1 if values.numel() else 0, shortest)
    kept = (values < width).nonzero().reshape(-1)
    found, place, _ = distinct((rows * max(width, 1) + values)[kept])
    if binary:
        totals = torch.ones(found.shape, dtype=weights.dtype)
    else:
        added = weights[kept] if weights.numel() else torch.ones(kept.shape, dtype=weights.dtype)
        totals = torch.zeros(found.shape, dtype=weights.dtype).index_add(0, place, added)
    columns = torch.stack([found // max(width, 1), found % max(width, 1)], 1)
    shape = torch.tensor([int(count), width], dtype=torch.int64)
    return columns[:, 2 - rank :], totals, shape[2 - rank :]


@op(stage="early")
def rows_of(values: Tensor) -> Tensor:
    """The row of each element of a matrix: `[rows, n] -> [rows, n]` int64; zeros for a vector.

    Errors: `InputError` if there are no elements, which TensorFlow refuses to count.
    """
    if 0 in values.shape:
        raise InputError("Invalid input: Shapes dimension cannot be 0.")
    if values.ndim < 2:
        return torch.zeros(values.shape, dtype=torch.int64)
    return torch.arange(values.shape[0]).unsqueeze(1).expand(values.shape)


def _split_rows(splits: Spec, values: Spec) -> list[Spec]:
    return [("int64", values[1])]


@op(stage="early", infer=_split_rows)
def rows_of_splits(splits: Tensor, values: Tensor) -> Tensor:
    """The row of each value of a ragged tensor: `[rows + 1], [n] -> [n]` int64. Errors: `InputError` as `rows_of_values`."""
    if splits.shape[0] < 2:
        raise InputError("row splits to count must have at least 2 elements")
    return rows_of_values(splits, values.shape[0])


def _same_values(indices: Spec, values: Spec, shape: Spec) -> list[Spec]:
    return [values]


@op(stage="early", infer=_same_values)
def sparse_softmax(indices: Tensor, values: Tensor, shape: Tensor) -> Tensor:
    """The softmax over the present elements of each row: `[n, rank], [n], [rank] -> [n]`. Source:
    tf.raw_ops.SparseSoftmax."""
    keys = torch.zeros(indices.shape[0], dtype=torch.int64)
    for axis, size in enumerate(ints(shape)[:-1]):
        keys = keys * size + indices[:, axis]
    _, place, counts = distinct(keys)
    highest = torch.full(counts.shape, -torch.inf, dtype=values.dtype).scatter_reduce(0, place, values, "amax")
    powers = torch.exp(values - highest[place])
    return powers / torch.zeros(counts.shape, dtype=values.dtype).index_add(0, place, powers)[place]


def _either(
    a: Spec, a_values: Spec, a_shape: Spec, b: Spec, b_values: Spec, b_shape: Spec, **attrs: object
) -> list[Spec]:
    rank = None if a_shape[1] is None else a_shape[1][0]
    return [("int64", (None, rank)), (a_values[0], (None,))]


@op(stage="early", infer=_either)
def sparse_extreme(
    a: Tensor, a_values: Tensor, a_shape: Tensor, b: Tensor, b_values: Tensor, b_shape: Tensor, *, largest: bool
) -> tuple[Tensor, Tensor]:
    """The maximum (or minimum) of two sparse tensors of equal shape, missing elements being 0: `[n, rank], [n], ... ->
    [k, rank], [k]`.

    Source: tf.raw_ops.SparseSparseMaximum, SparseSparseMinimum.
    """
    if ints(a_shape) != ints(b_shape):
        raise InputError(f"Operands' shapes do not match: got {ints(a_shape)} and {ints(b_shape)}")
    indices, place, _ = distinct(torch.cat([a, b]), 0)
    sides = torch.zeros((2, indices.shape[0]), dtype=a_values.dtype)
    sides[0, place[: a.shape[0]]] = a_values
    sides[1, place[a.shape[0] :]] = b_values
    return indices, torch.maximum(*sides) if largest else torch.minimum(*sides)
