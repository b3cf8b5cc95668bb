"""Matrix decompositions and solvers, in the operand's dtype (at least float32, LAPACK's narrowest)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import op
from torch_towers.kernels.fast_path import readable

_linalg: Any = torch.linalg  # untyped


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.float32) if x.dtype in (torch.float16, torch.bfloat16) else x


def _adjoint(x: Tensor, adjoint: bool) -> Tensor:
    return x.mH if adjoint else x


def _refuse(failed: Tensor, message: str) -> None:
    if readable(failed) and bool(failed.any()):
        raise InputError(message)


@op()
def cholesky(x: Tensor) -> Tensor:
    """The lower triangle L with `L L^H = x`: `[..., n, n] -> [..., n, n]`. Only the lower triangle of `x` is read.

    It is NaN if the matrix is not positive definite. Source: tf.raw_ops.Cholesky.
    """
    found, failed = _linalg.cholesky_ex(_wide(x))
    nan = torch.full_like(found, torch.nan).tril()
    return torch.where((failed != 0)[..., None, None], nan, found).to(x.dtype)


@op()
def matrix_inverse(x: Tensor, *, adjoint: bool) -> Tensor:
    """The inverse of matrices (or their adjoints): `[..., n, n] -> [..., n, n]`. Errors: `InputError` if a matrix is
    singular.

    Source: tf.raw_ops.MatrixInverse.
    """
    found, failed = _linalg.inv_ex(_adjoint(_wide(x), adjoint))
    _refuse(failed, "Input is not invertible.")
    return found.to(x.dtype)


@op()
def matrix_solve(a: Tensor, b: Tensor, *, adjoint: bool) -> Tensor:
    """X with `a X = b`: `[..., n, n], [..., n, m] -> [..., n, m]`. Errors: `InputError` if a matrix is singular.

    Source: tf.raw_ops.MatrixSolve.
    """
    found, failed = _linalg.solve_ex(_adjoint(_wide(a), adjoint), _wide(b))
    _refuse(failed, "Input matrix is not invertible.")
    return found.to(b.dtype)


@op()
def triangular_solve(a: Tensor, b: Tensor, *, lower: bool, adjoint: bool) -> Tensor:
    """X with `a X = b`, for a triangular `a`: `[..., n, n], [..., n, m] -> [..., n, m]`, leading axes broadcast.

    Source: tf.raw_ops.MatrixTriangularSolve.
    """
    triangle = torch.tril(_wide(a)) if lower else torch.triu(_wide(a))
    return _linalg.solve_triangular(_adjoint(triangle, adjoint), _wide(b), upper=lower == adjoint).to(b.dtype)


@op()
def banded_triangular_solve(bands: Tensor, b: Tensor, *, lower: bool, adjoint: bool) -> Tensor:
    """X with `a X = b`, for a triangular `a` given by its diagonals: `[..., bands, n], [..., n, m] -> [..., n, m]`.

    For a lower triangle the main diagonal is first and the others are padded in front; for an upper one it is last and
    they are padded at the end.
    Source: tf.raw_ops.BandedTriangularSolve.
    """
    count = bands.shape[-2]
    matrix = torch.zeros((*bands.shape[:-2], bands.shape[-1], bands.shape[-1]), dtype=bands.dtype, device=bands.device)
    for i in range(count):
        offset = i if lower else count - 1 - i
        diagonal = bands[..., i, offset:] if lower else bands[..., i, : bands.shape[-1] - offset]
        matrix = matrix + torch.diag_embed(diagonal, -offset if lower else offset)
    return triangular_solve(matrix, b, lower=lower, adjoint=adjoint)


@op()
def least_squares(a: Tensor, b: Tensor, regularizer: Tensor) -> Tensor:
    """X that minimizes `||a X - b||^2 + regularizer ||X||^2`: `[..., n, m], [..., n, k] -> [..., m, k]`.

    Source: tf.raw_ops.MatrixSolveLs.
    """
    a_wide, b_wide = _wide(a), _wide(b)
    weight = regularizer.to(a_wide.dtype)
    short = a.shape[-2] < a.shape[-1]
    gram = a_wide @ a_wide.mH if short else a_wide.mH @ a_wide
    gram = gram + weight * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    found = a_wide.mH @ _linalg.solve(gram, b_wide) if short else _linalg.solve(gram, a_wide.mH @ b_wide)
    return found.to(b.dtype)


@op()
def determinant(x: Tensor) -> Tensor:
    """The determinants of matrices: `[..., n, n] -> [...]`. Source: tf.raw_ops.MatrixDeterminant."""
    return _linalg.det(_wide(x)).to(x.dtype)


@op()
def log_determinant(x: Tensor) -> tuple[Tensor, Tensor]:
    """The sign and log of the absolute value of determinants: `[..., n, n] -> [...], [...]`.

    Source: tf.raw_ops.LogMatrixDeterminant.
    """
    sign, logarithm = _linalg.slogdet(_wide(x))
    return sign.to(x.dtype), logarithm.to(x.dtype)


@op()
def lu(x: Tensor, *, dtype: Dtype) -> tuple[Tensor, Tensor]:
    """The LU decomposition, both triangles in one matrix, and the row permutation: `[..., n, n] -> [..., n, n], [...,
    n]`.

    Source: tf.raw_ops.Lu.
    """
    found, pivots = _linalg.lu_factor(_wide(x))
    permutation, _, _ = torch.lu_unpack(found, pivots, unpack_data=False)
    return found.to(x.dtype), permutation.real.argmax(-2).to(torch_dtype(dtype))


@op()
def singular_values(x: Tensor) -> Tensor:
    """The singular values of matrices in descending order: `[..., n, m] -> [..., min(n, m)]`. Source:
    tf.raw_ops.Svd."""
    return _linalg.svdvals(_wide(x)).to(x.dtype)


@op()
def hermitian_eigenvalues(x: Tensor) -> Tensor:
    """The eigenvalues of Hermitian matrices in ascending order: `[..., n, n] -> [..., n]`; only the lower triangle is
    read.

    Source: tf.raw_ops.SelfAdjointEigV2.
    """
    return _linalg.eigvalsh(_wide(x)).to(x.dtype)


@op()
def matrix_exponential(x: Tensor) -> Tensor:
    """The exponential of matrices: `[..., n, n] -> [..., n, n]`. Source: tf.raw_ops.MatrixExponential."""
    return torch.matrix_exp(_wide(x)).to(x.dtype)


@op()
def tridiagonal_matmul(above: Tensor, main: Tensor, below: Tensor, b: Tensor) -> Tensor:
    """A tridiagonal matrix times a dense one: `3 x [..., 1, n], [..., n, m] -> [..., n, m]`.

    The last of `above` and the first of `below` are not read. Source: tf.raw_ops.TridiagonalMatMul.
    """
    after = torch.cat([b[..., 1:, :], torch.zeros_like(b[..., :1, :])], -2)
    before = torch.cat([torch.zeros_like(b[..., :1, :]), b[..., :-1, :]], -2)
    first = torch.cat([torch.zeros_like(below[..., :1]), below[..., 1:]], -1)
    last = torch.cat([above[..., :-1], torch.zeros_like(above[..., :1])], -1)
    return main.mT * b + last.mT * after + first.mT * before


@op()
def tridiagonal_solve(diagonals: Tensor, b: Tensor) -> Tensor:
    """X with `a X = b`, for a tridiagonal `a` given by its upper, main and lower diagonal: `[..., 3, n], [..., n, m] ->
    [..., n, m]`.

    Source: tf.raw_ops.TridiagonalSolve.
    """
    above, main, below = diagonals.unbind(-2)
    matrix = torch.diag_embed(main) + torch.diag_embed(above[..., :-1], 1) + torch.diag_embed(below[..., 1:], -1)
    return matrix_solve(matrix, b, adjoint=False)
