"""Reductions, cumulative sums, and argmax."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import op
from torch_towers.kernels.fast_path import readable
from torch_towers.kernels.top_k import largest
from torch_towers.ops.array import axis_of

Axes = tuple[int, ...]


@op()
def reduce_sum(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The sum over `axes`, in the dtype of `x`. Source: tf.raw_ops.Sum."""
    return torch.sum(x, axes, keepdim, dtype=x.dtype)


@op()
def reduce_mean(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The mean over `axes`, in the dtype of `x`; integers round towards zero. Source: tf.raw_ops.Mean."""
    if x.is_floating_point() or x.is_complex():
        return torch.mean(x, axes, keepdim)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(torch.sum(x, axes, keepdim, dtype=x.dtype), count, rounding_mode="trunc")


@op()
def reduce_prod(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The product over `axes`, in the dtype of `x`. Source: tf.raw_ops.Prod."""
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim, dtype=x.dtype)
    return x


@op()
def reduce_max(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The maximum over `axes`; the lowest value of the dtype for empty axes. Source: tf.raw_ops.Max."""
    if any(x.shape[axis] == 0 for axis in axes):
        return _empty(x, axes, keepdim, -1)
    return torch.amax(x, axes, keepdim)


@op()
def reduce_min(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The minimum over `axes`; the highest value of the dtype for empty axes. Source: tf.raw_ops.Min."""
    if any(x.shape[axis] == 0 for axis in axes):
        return _empty(x, axes, keepdim, 1)
    return torch.amin(x, axes, keepdim)


def _empty(x: Tensor, axes: Axes, keepdim: bool, sign: int) -> Tensor:
    if x.is_floating_point():
        extreme: float | int = sign * float("inf")
    else:
        extreme = torch.iinfo(x.dtype).max if sign > 0 else torch.iinfo(x.dtype).min
    reduced = torch.sum(x, axes, keepdim, dtype=x.dtype)
    return torch.full_like(reduced, extreme)


@op()
def reduce_all(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Whether all values over `axes` are true. Source: tf.raw_ops.All."""
    return torch.all(x, axes, keepdim)


@op()
def reduce_any(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """Whether any value over `axes` is true. Source: tf.raw_ops.Any."""
    return torch.any(x, axes, keepdim)


@op()
def euclidean_norm(x: Tensor, *, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The square root of the sum of squares over `axes`. Source: tf.raw_ops.EuclideanNorm."""
    return torch.sqrt(torch.sum(x * x, axes, keepdim, dtype=x.dtype))


@op()
def argmax(x: Tensor, *, axis: int, dtype: Dtype) -> Tensor:
    """The position of the maximum, the first of equal ones; NaN is ignored. Source: tf.raw_ops.ArgMax."""
    return _first(x, axis, -float("inf"), torch.argmax, dtype)


@op()
def argmin(x: Tensor, *, axis: int, dtype: Dtype) -> Tensor:
    """The position of the minimum, the first of equal ones; NaN is ignored. Source: tf.raw_ops.ArgMin."""
    return _first(x, axis, float("inf"), torch.argmin, dtype)


def _first(x: Tensor, axis: int, loser: float, extreme: object, dtype: str) -> Tensor:
    if x.shape[axis_of(axis, x.ndim)] == 0:
        raise InputError(f"Reduction axis {axis} is empty in shape {list(x.shape)}")
    if x.is_floating_point():
        x = torch.where(torch.isnan(x), loser, x)
    elif x.dtype == torch.bool:
        x = x.to(torch.uint8)
    find = torch.argmax if extreme is torch.argmax else torch.argmin
    return find(x, axis).to(torch_dtype(dtype))


@op()
def cumsum(x: Tensor, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Cumulative sums along an axis. Source: tf.raw_ops.Cumsum."""
    return _running(x, axis, exclusive, reverse, 0)


@op()
def cumprod(x: Tensor, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Cumulative products along an axis. Source: tf.raw_ops.Cumprod."""
    return _running(x, axis, exclusive, reverse, 1)


def _running(x: Tensor, axis: int, exclusive: bool, reverse: bool, neutral: int) -> Tensor:
    if reverse:
        x = x.flip(axis)
    if exclusive:
        n = x.shape[axis]
        first = torch.full_like(x.narrow(axis, 0, min(n, 1)), neutral)
        x = torch.cat([first, x.narrow(axis, 0, max(n - 1, 0))], axis)
    running = torch.cumprod(x, axis, dtype=x.dtype) if neutral else torch.cumsum(x, axis, dtype=x.dtype)
    return running.flip(axis) if reverse else running


@op()
def top_k(x: Tensor, k: int, *, dtype: Dtype = "int32") -> tuple[Tensor, Tensor]:
    """The `k` largest values of the last axis in descending order, and their positions: `[..., n] -> [..., k], [...,
    k]`.

    Ties go to the lower position, which torch.topk does not guarantee. Source: tf.raw_ops.TopKV2.
    """
    if readable(x) and k < 0:
        raise InputError(f"Need k >= 0, got {k}")
    if readable(x) and x.shape[-1] < k:
        raise InputError(f"input must have at least k columns. Had {x.shape[-1]}, needed {k}")
    values, positions = largest(x, k)
    return values, positions.to(torch_dtype(dtype))


@op()
def weighted_sum(x: Tensor, weights: Tensor) -> Tensor:
    """The weighted (or masked) sum of the rows of `x`: `[n, length, dim], [n, length] -> [n, dim]`.

    Source: Keras GlobalAveragePooling1D with a mask.
    """
    return torch.bmm(weights.to(x.dtype).unsqueeze(1), x).squeeze(1)
