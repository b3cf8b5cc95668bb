"""Activations and normalizations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from torch_towers.graph.registry import elementwise, op
from torch_towers.kernels import small_layers
from torch_towers.kernels.matmul import rectified


def _activation(name: str, function: Callable[[Tensor], Tensor], source: str) -> None:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    apply.__doc__ = f"`{name}(x)`, elementwise: `[...] -> [...]`. Source: tf.raw_ops.{source}."
    op(name=name, infer=elementwise())(apply)


for _name, _function, _source in (
    ("elu", F.elu, "Elu"),
    ("selu", F.selu, "Selu"),
    ("softsign", F.softsign, "Softsign"),
):
    _activation(_name, _function, _source)


@op(infer=elementwise())
def relu(x: Tensor, *, no_nan: bool = False) -> Tensor:
    """`max(x, 0)`: `[...] -> [...]`. NaN stays, or with `no_nan` becomes 0 like in oneDNN's fused kernels. Source:
    tf.raw_ops.Relu."""
    return rectified(x, no_nan)


@op(infer=elementwise())
def relu6(x: Tensor, *, no_nan: bool = False) -> Tensor:
    """`min(max(x, 0), 6)`: `[...] -> [...]`. NaN stays, or with `no_nan` becomes 0. Source: tf.raw_ops.Relu6."""
    return F.relu6(_without_nan(x) if no_nan else x)


def _without_nan(x: Tensor) -> Tensor:
    return torch.nan_to_num(x, 0.0, math.inf, -math.inf)


@op(infer=elementwise())
def leaky_relu(x: Tensor, *, alpha: float) -> Tensor:
    """`x` where positive, `alpha * x` elsewhere. Source: tf.raw_ops.LeakyRelu."""
    return F.leaky_relu(x, alpha)


@op(infer=elementwise())
def softmax(x: Tensor) -> Tensor:
    """Softmax over the last axis: `[..., n] -> [..., n]`. Source: tf.raw_ops.Softmax."""
    small = small_layers.softmax(x)
    return torch.softmax(x, -1) if small is None else small


@op()
def log_softmax(x: Tensor) -> Tensor:
    """Log-softmax over the last axis: `[..., n] -> [..., n]`. Source: tf.raw_ops.LogSoftmax."""
    return torch.log_softmax(x, -1)


@op()
def bias_add(x: Tensor, bias: Tensor, *, axis: int = -1) -> Tensor:
    """`x` plus a bias per channel; `axis` is the channel axis: `[..., c, ...], [c] -> [..., c, ...]`. Source:
    tf.raw_ops.BiasAdd."""
    return x + bias.reshape(_channels(x, axis))


def _channels(x: Tensor, axis: int) -> list[int]:
    """The shape in which a vector per channel broadcasts against `x`."""
    return [-1] + [1] * (x.ndim - 1 - axis % x.ndim)


@op()
def batch_norm(
    x: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float, axis: int
) -> Tensor:
    """`(x - mean) * (rsqrt(variance + epsilon) * scale) + offset`, per channel. Source: tf.raw_ops.FusedBatchNormV3,
    inference."""
    shape = _channels(x, axis)
    wide = x.to(scale.dtype)
    factor = torch.rsqrt(variance + epsilon) * scale
    return ((wide - mean.reshape(shape)) * factor.reshape(shape) + offset.reshape(shape)).to(x.dtype)


@op()
def batch_statistics(x: Tensor, *, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and unbiased variance of each channel over all other axes: `[..., c, ...] -> [c], [c], [c]`.

    At least in float32. Source: tf.raw_ops.FusedBatchNormV3, training.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    others = [i for i in range(x.ndim) if i != axis % x.ndim]
    mean = wide.mean(others)
    squares = torch.square(wide - mean.reshape(_channels(x, axis)))
    count = x.numel() // x.shape[axis]
    return mean, squares.mean(others), squares.sum(others) / max(count - 1, 1)


@op()
def local_response_norm(x: Tensor, *, radius: int, bias: float, alpha: float, beta: float) -> Tensor:
    """Local response normalization over neighbours on the last axis. Source: tf.raw_ops.LRN."""
    radius = min(radius, x.shape[-1])  # there is nothing to add beyond
    near = F.pad(x * x, (radius, radius)).unfold(-1, 2 * radius + 1, 1).sum(-1)
    return x * torch.pow(bias + alpha * near, -beta)
