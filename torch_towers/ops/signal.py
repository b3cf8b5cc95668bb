"""Fourier transforms, at the precision of the operand: float32 gives complex64, float64 complex128."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import op
from torch_towers.ops.sizes import as_sizes

_fourier: Any = torch.fft  # untyped


def _over(x: Tensor, shape: Sequence[int], transform: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
    """`transform(x)`, or zeros of `shape` for an empty operand, which torch refuses."""
    return torch.zeros(tuple(shape), dtype=dtype, device=x.device) if 0 in (x.numel(), *shape) else transform(x)


@op()
def fft(x: Tensor, *, rank: int, inverse: bool = False) -> Tensor:
    """The Fourier transform over the last `rank` axes: `[..., *n] -> [..., *n]`, both complex. The inverse divides by
    the size.

    Source: tf.raw_ops.FFT, FFT2D, FFT3D, IFFT, IFFT2D, IFFT3D.
    """
    transform = _fourier.ifftn if inverse else _fourier.fftn
    return _over(x, x.shape, lambda y: transform(y, dim=_last(rank)), x.dtype)


@op()
def rfft(x: Tensor, *lengths: int, rank: int) -> Tensor:
    """One half of a real operand's Fourier transform over its last axes: `[..., *n] -> [..., *lengths[:-1], lengths[-1]
    // 2 + 1]`.

    The operand is truncated to `lengths`; 16-bit floats are computed and returned as float32.
    Errors: `InputError` if the operand is shorter. Source: tf.raw_ops.RFFT, RFFT2D, RFFT3D.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    sizes = _enough(x, as_sizes(lengths), as_sizes(lengths))
    shape = [*x.shape[: x.ndim - rank], *sizes[:-1], sizes[-1] // 2 + 1 if sizes[-1] else 0]
    return _over(
        wide,
        shape,
        lambda y: _fourier.rfftn(y, s=sizes, dim=_last(rank)),
        torch.promote_types(wide.dtype, torch.complex64),
    )


@op()
def irfft(x: Tensor, *lengths: int, rank: int, dtype: Dtype) -> Tensor:
    """The inverse of `rfft`: `[..., *n] -> [..., *lengths]`, in the requested float dtype.

    Errors: `InputError` if the operand is shorter than the transform of a result of these lengths.
    Source: tf.raw_ops.IRFFT, IRFFT2D, IRFFT3D.
    """
    wanted = as_sizes(lengths)
    sizes = _enough(x, [*wanted[:-1], wanted[-1] // 2 + 1 if wanted[-1] else 0], wanted)
    shape = [*x.shape[: x.ndim - rank], *sizes]
    real = torch.float64 if x.dtype == torch.complex128 else torch.float32
    return _over(x, shape, lambda y: _fourier.irfftn(y, s=sizes, dim=_last(rank)), real).to(torch_dtype(dtype))


def _last(rank: int) -> tuple[int, ...]:
    return tuple(range(-rank, 0))


def _enough(x: Tensor, needed: Sequence[int], lengths: list[int]) -> list[int]:
    """`lengths` unchanged. Errors: `InputError` if an axis of `x` is shorter than they need."""
    for axis, need in zip(_last(len(needed)), needed, strict=True):
        if x.numel() and x.shape[axis] < need:
            raise InputError(
                f"Input dimension {x.ndim + axis} must have length of at least {need} but got: {x.shape[axis]}"
            )
    return lengths
