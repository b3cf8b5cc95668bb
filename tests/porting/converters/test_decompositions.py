"""Matrix decompositions and solvers against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from porting.errors import PortingError
from tests.witness import Case, assert_equal, case, check_case, check_function, run, tf
from torch_towers.errors import InputError
from torch_towers.ops.decompositions import matrix_exponential

RNG = np.random.default_rng(0)
ELIMINATION = (
    "eliminations of well conditioned 4 x 4 matrices in two libraries: some ulp of the largest number, a little over 10"
)
DTYPES = ((np.float32, 2e-5), (np.float64, 1e-13), (np.complex64, 2e-5), (np.complex128, 1e-13))


def matrices(*shape: int, dtype: Any) -> np.ndarray:
    x = RNG.normal(size=shape)
    return (x + 1j * RNG.normal(size=shape)).astype(dtype) if np.dtype(dtype).kind == "c" else x.astype(dtype)


def cases() -> list[Case]:
    rows: list[Case] = []
    for dtype, size in DTYPES:
        common = {"absolute": size, "reason": ELIMINATION}
        square = matrices(3, 4, 4, dtype=dtype) + 4 * np.eye(4, dtype=dtype)
        right = matrices(3, 4, 2, dtype=dtype)
        positive = square @ square.conj().swapaxes(-1, -2)
        name = np.dtype(dtype).name
        rows.append(case("Cholesky", input=positive, **common, label=name))
        for adjoint in (False, True):
            attrs = {"adjoint": adjoint}
            rows.append(case("MatrixInverse", input=square, attrs=attrs, **common, label=f"{name} {adjoint}"))
            rows.append(case("MatrixSolve", matrix=square, rhs=right, attrs=attrs, **common, label=f"{name} {adjoint}"))
            for lower in (False, True):
                attrs = {"adjoint": adjoint, "lower": lower}
                rows.append(
                    case(
                        "MatrixTriangularSolve",
                        matrix=square,
                        rhs=right,
                        attrs=attrs,
                        **common,
                        label=f"{name} {lower} {adjoint}",
                    )
                )
                bands = matrices(3, 2, 4, dtype=dtype) + 3
                rows.append(
                    case(
                        "BandedTriangularSolve",
                        matrix=bands,
                        rhs=right,
                        attrs=attrs,
                        **common,
                        label=f"{name} {lower} {adjoint}",
                    )
                )
        rows.append(
            case("MatrixDeterminant", input=square, ulp=64, absolute=size * 100, reason=ELIMINATION, label=name)
        )
        rows.append(case("LogMatrixDeterminant", input=square, **common, label=name))
        rows += [case("Lu", input=square[:, ::-1], attrs={"output_idx_type": kind}, **common, label=f"{name} {kind.name}")
                 for kind in (tf.int32, tf.int64)]  # fmt: skip
        for shape in ((5, 3), (3, 5)):
            rows.append(case("MatrixSolveLs", "l2_regularizer", matrix=matrices(2, *shape, dtype=dtype), rhs=matrices(2, shape[0], 2, dtype=dtype),
                             l2_regularizer=np.float64(0.5), **common, label=f"{name} {shape}"))  # fmt: skip
        diagonals = [matrices(3, 1, 4, dtype=dtype) for _ in range(3)]
        rows.append(
            case(
                "TridiagonalMatMul",
                superdiag=diagonals[0],
                maindiag=diagonals[1],
                subdiag=diagonals[2],
                rhs=right,
                **common,
                label=name,
            )
        )
        stacked = np.concatenate([diagonals[0], diagonals[1] + 4, diagonals[2]], 1)
        rows.append(case("TridiagonalSolve", diagonals=stacked, rhs=right, **common, label=name))
    dense = matrices(3, 4, dtype=np.float32)
    for a, b in ((False, False), (True, False), (False, True)):
        left, other = dense.T if a else dense, matrices(*((2, 4) if b else (4, 2)), dtype=np.float32)
        rows.append(case("SparseMatMul", a=left, b=other, attrs={"transpose_a": a, "transpose_b": b}, free=False, absolute=1e-6,
                         reason="the same sum in another order"))  # fmt: skip
    half = dense.astype(tf.bfloat16.as_numpy_dtype)
    rows.append(case("SparseMatMul", a=half, b=half.T.copy(), free=False, absolute=1e-6,
                     reason="the same sum in another order", label="bfloat16"))  # fmt: skip
    return rows


CASES = cases()
COVERED = ("MatrixExponential", "Svd", "SelfAdjointEigV2")
"""`MatrixExponential` is an op of TensorFlow before 1.12; tf.linalg.expm, the same function, is products and solves now."""


@pytest.mark.parametrize("row", CASES, ids=str)
def test_conformance(row: Case) -> None:
    check_case(row)


def test_the_root_of_what_is_not_positive_definite() -> None:
    """Not a number; above the diagonal TensorFlow leaves uninitialized memory."""
    x = np.array([[[4, 2], [2, -1]], [[4, 2], [2, 3.0]]])
    check_function(lambda x: tf.linalg.band_part(tf.raw_ops.Cholesky(input=x), -1, 0), [{"x": x}], absolute=1e-15)


@pytest.mark.parametrize("dtype, size", DTYPES)
def test_values_without_vectors(dtype: Any, size: float) -> None:
    x = matrices(3, 4, 4, dtype=dtype)
    check_function(
        lambda x: tf.raw_ops.Svd(input=x, compute_uv=False)[0], [{"x": x[:, :2]}, {"x": x[:1, :2]}], absolute=size
    )
    hermitian = x + x.conj().swapaxes(-1, -2)
    check_function(
        lambda x: tf.raw_ops.SelfAdjointEigV2(input=x, compute_v=False)[0], [{"x": hermitian}], absolute=size
    )


def test_the_exponential_is_tensorflows() -> None:
    x = matrices(2, 4, 4, dtype=np.float64)
    expected = tf.linalg.expm(x).numpy()
    assert_equal(matrix_exponential(torch.from_numpy(x)), expected, absolute=1e-11)


@pytest.mark.parametrize("name, function", [
    ("not invertible", lambda x: tf.raw_ops.MatrixInverse(input=x)),
    ("not invertible", lambda x: tf.raw_ops.MatrixSolve(matrix=x, rhs=x)),
])  # fmt: skip
def test_what_cannot_be_solved(name: str, function: Any) -> None:
    program = check_function(function, [{"x": np.eye(3, dtype=np.float32)[None]}])
    singular = np.zeros((1, 3, 3), np.float32)
    with pytest.raises(InputError, match=name):
        run(program, {"x": singular})
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        function(singular)


@pytest.mark.parametrize("function", [tf.linalg.eigh, tf.linalg.svd])
def test_vectors_are_refused(function: Any) -> None:
    with pytest.raises(PortingError, match="signs are TensorFlow's own"):
        check_function(lambda x: function(x)[1], [{"x": np.eye(3, dtype=np.float32)[None]}])
