"""Histograms as sparse tensors, and sparse tensors joined or normalized, against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.witness import Case, case, check_case, check_function, run, tf
from torch_towers.errors import InputError

VALUES = np.array([[1, 3, 3, 0], [7, 7, 2, 2]])
WEIGHTS = np.array([[0.5, 1, 2, 0], [-1, 1, 4, 8]], np.float32)
NONE = np.zeros(0, np.float32)


def count_cases() -> list[Case]:
    rows: list[Case] = []
    indices = np.argwhere(VALUES >= 0)
    for binary in (False, True):
        for shortest, longest in ((-1, -1), (10, -1), (-1, 3), (2, 100)):
            attrs = {"binary_output": binary, "minlength": shortest, "maxlength": longest}
            for weights in (NONE, WEIGHTS, WEIGHTS.astype(np.float64), WEIGHTS.astype(np.int64)):
                given = None if weights is NONE else weights
                for values in (VALUES, VALUES[0].astype(np.int32)):
                    own = NONE if given is None else given[: len(values)] if values.ndim == 2 else given[0]
                    rows.append(case("DenseCountSparseOutput", values=values, weights=own, attrs=attrs, free=False,
                                     label=f"{values.shape} {own.dtype} {binary} {shortest} {longest} {own.shape}"))  # fmt: skip
                own = NONE if given is None else given.reshape(-1)
                common = {
                    "weights": own,
                    "attrs": attrs,
                    "free": False,
                    "label": f"{own.dtype} {own.shape} {binary} {shortest} {longest}",
                }
                rows.append(
                    case(
                        "SparseCountSparseOutput",
                        indices=indices,
                        values=VALUES.reshape(-1),
                        dense_shape=np.array([3, 4]),
                        **common,
                    )
                )
                rows.append(
                    case("RaggedCountSparseOutput", splits=np.array([0, 3, 3, 8]), values=VALUES.reshape(-1), **common)
                )
            rows.append(case("SparseCountSparseOutput", indices=np.arange(4)[:, None], values=VALUES[0], dense_shape=np.array([9]),
                             weights=NONE, attrs=attrs, free=False, label=f"a vector {binary} {shortest} {longest}"))  # fmt: skip
    return rows


def element_cases() -> list[Case]:
    rows: list[Case] = []
    indices = np.array([[0, 0, 1], [0, 0, 3], [1, 0, 0], [1, 2, 2], [1, 2, 3]])
    shape = np.array([2, 3, 4])
    for dtype in (np.float32, np.float64):
        values = np.array([1, 2, -3, 100, 99], dtype)
        rows.append(case("SparseSoftmax", sp_indices=indices, sp_values=values, sp_shape=shape, ulp=4, batched=False,
                         reason="exponentials of two libraries", label=np.dtype(dtype).name))  # fmt: skip
    for dtype in (np.float32, np.int64, np.uint8):
        values = np.array([1, 2, 3, 100, 99]).astype(dtype) - dtype(dtype is not np.uint8) * dtype(50)
        for op in ("SparseSparseMaximum", "SparseSparseMinimum"):
            rows.append(case(op, a_indices=indices[:3], a_values=values[:3], a_shape=shape, b_indices=indices[1:], b_values=values[1:][::-1].copy(),
                             b_shape=shape, batched=False, label=np.dtype(dtype).name))  # fmt: skip
    return rows


CASES = count_cases() + element_cases()


@pytest.mark.parametrize("row", CASES, ids=str)
def test_conformance(row: Case) -> None:
    check_case(row)


def test_what_tensorflow_does_not_count() -> None:
    def build(x: Any) -> Any:
        return list(tf.raw_ops.DenseCountSparseOutput(values=x, weights=NONE, binary_output=False))

    program = check_function(build, [{"x": VALUES}])
    with pytest.raises(InputError, match="must all be non-negative"):
        run(program, {"x": -VALUES})
    with pytest.raises(InputError, match="dimension cannot be 0"):
        run(program, {"x": VALUES[:0]})


@pytest.mark.parametrize("op", ["RaggedCountSparseOutput", "RaggedBincount"])
@pytest.mark.parametrize(
    "splits", [[0, 2], [0, 0, 1, 1, 2], [0, 3, 2], [0, 0, 2, 1, 2], [0, 1 << 40], [1, 2], [0, 1], [0], []]
)
def test_row_splits(op: str, splits: list[int]) -> None:
    """Also those that go down; refused are those with other ends, whatever they promise."""
    size = {"size": 3} if op == "RaggedBincount" else {}

    def build(x: Any, splits: Any) -> list[Any]:
        found = getattr(tf.raw_ops, op)(splits=splits, values=x, weights=NONE, binary_output=False, **size)
        return [found] if op == "RaggedBincount" else list(found)

    program = check_function(build, [{"x": np.int32([1, 2]), "splits": np.int64([0, 1, 2])}])
    given = {"x": np.int32([1, 2]), "splits": np.int64(splits)}
    try:
        expected = build(**{name: tf.constant(value) for name, value in given.items()})
    except tf.errors.InvalidArgumentError:
        with pytest.raises(InputError, match="splits"):
            run(program, given)
    else:
        for found, value in zip(run(program, given).values(), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), value.numpy())


def test_sparse_bincount() -> None:
    """What Keras writes for `sparse=True`."""

    def build(x: Any) -> Any:
        found = tf.sparse.bincount(x, minlength=9, maxlength=9, binary_output=True)
        return found.indices, found.values, found.dense_shape, tf.sparse.to_dense(found)

    check_function(build, [{"x": VALUES}, {"x": VALUES[:1]}])
