"""Activations that TensorFlow's graphs express by several ops, as one op each."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from torch_towers.graph.registry import op
from torch_towers.kernels.fast_path import plain


@op()
def gelu(x: Tensor, *, form: Literal["erf", "erfc", "tanh"]) -> Tensor:
    """`x` times the normal CDF: `[...] -> [...]`; `form` selects the formula: "erf", "erfc" or "tanh".

    "erfc" stays accurate far below 0, where "erf" cancels. Source: tf.nn.gelu, Keras gelu.
    """
    if form == "erfc" and plain(x):  # in-place: allocating takes longer than the arithmetic
        return torch.mul(x, -math.sqrt(0.5)).erfc_().mul_(x).mul_(0.5)  # halving is exact, so its order does not matter
    if form == "erfc":
        return 0.5 * x * torch.erfc(x * -math.sqrt(0.5))
    return F.gelu(x, approximate="tanh" if form == "tanh" else "none")


@op()
def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`: `[...] -> [...]`. Source: tf.nn.silu, Keras swish."""
    return F.silu(x)


@op()
def mish(x: Tensor) -> Tensor:
    """`x * tanh(softplus(x))`: `[...] -> [...]`. Source: Keras mish."""
    return F.mish(x)


@op()
def hard_sigmoid(x: Tensor) -> Tensor:
    """`relu6(x + 3) / 6`: `[...] -> [...]`. Source: Keras 3 hard_sigmoid."""
    return F.hardsigmoid(x)


@op()
def hard_silu(x: Tensor) -> Tensor:
    """`x * relu6(x + 3) / 6`: `[...] -> [...]`. Source: Keras 3 hard_silu."""
    return F.hardswish(x)


@op()
def clipped_line(x: Tensor, *, slope: float, offset: float) -> Tensor:
    """`slope * x + offset`, clamped to [0, 1]: `[...] -> [...]`. Source: the hard_sigmoid of Keras 1 and 2."""
    return torch.clamp(x * slope + offset, 0.0, 1.0)


@op()
def scaled_elu(x: Tensor, *, alpha: float) -> Tensor:
    """`x` where positive, `alpha * (exp(x) - 1)` elsewhere: `[...] -> [...]`. Source: Keras ELU."""
    return F.elu(x, alpha)


@op()
def log_sigmoid(x: Tensor) -> Tensor:
    """`log(sigmoid(x))`: `[...] -> [...]`. Source: tf.math.log_sigmoid."""
    return F.logsigmoid(x)
