"""Matrix decompositions and solvers. Results unique only up to sign or phase (eigenvectors) are refused: TensorFlow's
choice cannot be matched."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError

Emit = ConvertingEmitter


@converter("Cholesky")
def cholesky(t: Emit, x: Any) -> Any:
    return t.cholesky(x)


@converter("MatrixInverse")
def matrix_inverse(t: Emit, x: Any, *, adjoint: bool = False) -> Any:
    return t.matrix_inverse(x, adjoint=adjoint)


@converter("MatrixSolve")
def matrix_solve(t: Emit, a: Any, b: Any, *, adjoint: bool = False) -> Any:
    return t.matrix_solve(a, b, adjoint=adjoint)


@converter("MatrixSolveLs", ignores=("fast",))
def matrix_solve_ls(t: Emit, a: Any, b: Any, regularizer: Any) -> Any:
    """`fast` only selects the algorithm."""
    return t.least_squares(a, b, t.tensor(regularizer))


@converter("MatrixTriangularSolve")
def triangular_solve(t: Emit, a: Any, b: Any, *, lower: bool = True, adjoint: bool = False) -> Any:
    return t.triangular_solve(a, b, lower=lower, adjoint=adjoint)


@converter("BandedTriangularSolve")
def banded_triangular_solve(t: Emit, bands: Any, b: Any, *, lower: bool = True, adjoint: bool = False) -> Any:
    return t.banded_triangular_solve(bands, b, lower=lower, adjoint=adjoint)


@converter("MatrixDeterminant")
def determinant(t: Emit, x: Any) -> Any:
    return t.determinant(x)


@converter("LogMatrixDeterminant", outputs=("sign", "log_abs_determinant"))
def log_determinant(t: Emit, x: Any) -> Any:
    return t.log_determinant(x)


@converter("Lu", outputs=("lu", "p"))
def lu(t: Emit, x: Any, *, output_idx_type: str = "int32") -> Any:
    return t.lu(x, dtype=output_idx_type)


@converter(
    "Svd",
    outputs=("s", "u", "v"),
    ignores=("full_matrices",),
    refuses="singular vectors, whose signs are TensorFlow's own",
)
def svd(t: Emit, x: Any, *, compute_uv: bool = True) -> Any:
    if compute_uv:
        raise PortingError(
            f"Svd {t.scope!r} gives singular vectors, whose signs are TensorFlow's own: only values are ported"
        )
    values = t.singular_values(x)
    return values, values, values  # the other results have no readers


@converter("SelfAdjointEigV2", outputs=("e", "v"), refuses="eigenvectors, whose signs are TensorFlow's own")
def self_adjoint_eig(t: Emit, x: Any, *, compute_v: bool = True) -> Any:
    if compute_v:
        raise PortingError(
            f"SelfAdjointEigV2 {t.scope!r} gives eigenvectors, whose signs are TensorFlow's own: only values are ported"
        )
    values = t.hermitian_eigenvalues(x)
    return values, values  # the other result has no readers


@converter("MatrixExponential")
def matrix_exponential(t: Emit, x: Any) -> Any:
    return t.matrix_exponential(x)


@converter("TridiagonalMatMul")
def tridiagonal_matmul(t: Emit, above: Any, main: Any, below: Any, b: Any) -> Any:
    return t.tridiagonal_matmul(above, main, below, b)


@converter("TridiagonalSolve", ignores=("partial_pivoting", "perturb_singular"))
def tridiagonal_solve(t: Emit, diagonals: Any, b: Any) -> Any:
    return t.tridiagonal_solve(diagonals, b)


@converter("SparseMatMul", ignores=("a_is_sparse", "b_is_sparse"))
def sparse_matmul(t: Emit, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    """Dense matrices with many zeros; 16-bit operands are multiplied and returned in float32."""
    a, b = (t.cast(x, dtype="float32") if x.dtype == "bfloat16" else x for x in (a, b))
    return t.matmul(t.matrix_transpose(a) if transpose_a else a, t.matrix_transpose(b) if transpose_b else b)
