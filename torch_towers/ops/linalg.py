"""Matrix products and diagonals."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.graph.registry import op
from torch_towers.kernels.fast_path import readable
from torch_towers.kernels.matmul import products


@op()
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product, leading axes broadcast: `[..., n, k], [..., k, m] -> [..., n, m]`.

    Source: tf.raw_ops.MatMul, tf.raw_ops.BatchMatMulV2.
    """
    if a.ndim == 2 and b.ndim == 2 and readable() and b.stride(0) == 1:
        return products(a, b.mT)  # `b` is a transposed row-major weight: candidates of an index, a tied embedding
    return torch.matmul(a, b)


@op()
def matrix_transpose(x: Tensor) -> Tensor:
    """Swaps the last two axes: `[..., n, m] -> [..., m, n]`. Source: tf.raw_ops.MatMul with transpose_a or
    transpose_b."""
    return x.mT


@op()
def einsum(*xs: Tensor, equation: str) -> Tensor:
    """Einstein summation. Source: tf.raw_ops.Einsum."""
    return torch.einsum(equation, *xs)


@op()
def cross(a: Tensor, b: Tensor) -> Tensor:
    """The cross product: `[..., 3], [..., 3] -> [..., 3]`. Source: tf.raw_ops.Cross."""
    return torch.cross(a, b, dim=-1)


@op()
def band_part(x: Tensor, *, lower: int, upper: int) -> Tensor:
    """Keeps `lower` diagonals below and `upper` above the main one, zeros elsewhere; -1 keeps all. Source:
    tf.raw_ops.MatrixBandPart."""
    rows = torch.arange(x.shape[-2], device=x.device).unsqueeze(1)
    columns = torch.arange(x.shape[-1], device=x.device)
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    if lower >= 0:
        inside = inside & (rows - columns <= lower)
    if upper >= 0:
        inside = inside & (columns - rows <= upper)
    return torch.where(inside, x, torch.zeros((), dtype=x.dtype, device=x.device))


@op()
def diagonal(x: Tensor, *, offset: int = 0) -> Tensor:
    """A diagonal of matrices: `[..., n, m] -> [..., k]`. Source: tf.raw_ops.MatrixDiagPartV3."""
    return torch.diagonal(x, offset, -2, -1)


@op()
def diag_embed(x: Tensor, *, offset: int = 0) -> Tensor:
    """Matrices with `x` on a diagonal: `[..., n] -> [..., n + |offset|, n + |offset|]`. Source:
    tf.raw_ops.MatrixDiagV3."""
    return torch.diag_embed(x, offset, -2, -1)


@op()
def diagonal_scatter(x: Tensor, values: Tensor, *, offset: int = 0) -> Tensor:
    """`x` with `values` on a diagonal: `[..., n, m], [..., k] -> [..., n, m]`. Source: tf.raw_ops.MatrixSetDiagV3."""
    return torch.diagonal_scatter(x, values, offset, -2, -1)
