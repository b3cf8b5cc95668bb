"""Matrix products and diagonals."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError
from torch_towers.graph.graph import Size

Emit = ConvertingEmitter


@converter("MatMul", ignores=("grad_a", "grad_b"))
def matmul(t: Emit, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    return t.matmul(t.matrix_transpose(a) if transpose_a else a, t.matrix_transpose(b) if transpose_b else b)


@converter(
    "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", ignores=("grad_x", "grad_y"), refuses="a result of another dtype"
)
def batch_matmul(t: Emit, a: Any, b: Any, *, adj_x: bool = False, adj_y: bool = False, Tout: str | None = None) -> Any:
    if Tout not in (None, a.dtype):
        raise PortingError(f"BatchMatMulV3 {t.scope!r} multiplies {a.dtype} into {Tout}, which is not supported")
    return t.matmul(_adjoint(t, a) if adj_x else a, _adjoint(t, b) if adj_y else b)


def _adjoint(t: Emit, x: Any) -> Any:
    return t.matrix_transpose(t.conj(x) if (x.dtype or "").startswith("complex") else x)


@converter("Einsum")
def einsum(t: Emit, *xs: Any, equation: str) -> Any:
    return t.einsum(*xs, equation=equation)


@converter("Cross")
def cross(t: Emit, a: Any, b: Any) -> Any:
    return t.cross(a, b)


@converter("MatrixBandPart")
def band_part(t: Emit, x: Any, lower: int, upper: int) -> Any:
    sizes: tuple[Size, ...] = (x.shape or ())[-2:]
    for what, count, size in zip(("num_lower", "num_upper"), (lower, upper), sizes):
        if isinstance(size, int) and count > size:
            raise PortingError(f"MatrixBandPart {t.scope!r}: {what} must be negative or at most {size}, and is {count}")
    return t.band_part(x, lower=lower, upper=upper)


@converter("Diag")
def diag(t: Emit, x: Any) -> Any:
    if x.shape is None or len(x.shape) != 1:
        raise PortingError(f"Diag {t.scope!r}: only vectors are supported, its operand has the shape {x.shape}")
    return t.diag_embed(x)


@converter("DiagPart")
def diag_part(t: Emit, x: Any) -> Any:
    if x.shape is None or len(x.shape) != 2:
        raise PortingError(f"DiagPart {t.scope!r}: only matrices are supported, its operand has the shape {x.shape}")
    return t.diagonal(x)


@converter("MatrixDiag")
def matrix_diag(t: Emit, diagonal: Any) -> Any:
    return t.diag_embed(diagonal)


@converter(
    "MatrixDiagV2",
    "MatrixDiagV3",
    ignores=("align",),
    refuses="bands of several diagonals; non-square results",
)
def matrix_diag_v3(t: Emit, diagonal: Any, k: tuple[int, ...], rows: int, columns: int, padding: Any) -> Any:
    if rows != -1 or columns != -1 or padding.python() != 0:
        raise PortingError(f"{t.scope!r}: a diagonal in a matrix of given size or padding is not supported")
    return t.diag_embed(diagonal, offset=_offset(t, k))


@converter("MatrixDiagPart")
def matrix_diag_part(t: Emit, x: Any) -> Any:
    return t.diagonal(x)


@converter("MatrixDiagPartV2", "MatrixDiagPartV3", ignores=("align",), refuses="bands of several diagonals")
def matrix_diag_part_v3(t: Emit, x: Any, k: tuple[int, ...], padding: Any) -> Any:
    return t.diagonal(x, offset=_offset(t, k))


@converter("MatrixSetDiag")
def matrix_set_diag(t: Emit, x: Any, diagonal: Any) -> Any:
    return t.diagonal_scatter(x, diagonal)


@converter("MatrixSetDiagV2", "MatrixSetDiagV3", ignores=("align",), refuses="bands of several diagonals")
def matrix_set_diag_v3(t: Emit, x: Any, diagonal: Any, k: tuple[int, ...]) -> Any:
    return t.diagonal_scatter(x, diagonal, offset=_offset(t, k))


def _offset(t: Emit, k: tuple[int, ...]) -> int:
    if len(set(k)) != 1:
        raise PortingError(
            f"{t.scope!r} works on the diagonals {k[0]} to {k[-1]} at once: only single diagonals are supported"
        )
    return k[0]
