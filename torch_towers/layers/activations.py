"""Activations with weights, and activations by name, for layers that take one as an argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.ops.activations import clipped_line, gelu
from torch_towers.ops.math import UNARY
from torch_towers.ops.nn import relu, relu6

Activation = Literal[
    "linear", "relu", "relu6", "elu", "selu", "silu", "softsign", "sigmoid", "tanh", "softplus", "clipped_line", "hard_sigmoid",
    "exp", "softmax", "log_softmax", "gelu", "gelu_erf", "gelu_tanh", "hard_silu", "mish", "log_sigmoid", "leaky_relu", "celu",
    "hard_tanh", "tanh_shrink", "hard_shrink", "soft_shrink", "sparse_plus", "sparse_sigmoid", "squareplus",
]  # fmt: skip
"""The names that `activation` knows: those of Keras's pointwise activations, with Keras's own constants, and its softmaxes
over the units. `gelu` is the exact one, `gelu_erf` the same by `erf`, as TensorFlow wrote it before."""

PReLU = module()(nn.PReLU)
"""`x` where positive, else `weight * x`: `[n, features] -> [n, features]`. Source: Keras PReLU."""


def _clipped_line(x: Tensor, slope: float) -> Tensor:
    return clipped_line(x, slope=slope, offset=0.5)


def _hard_sigmoid(x: Tensor, slope: float) -> Tensor:
    return F.relu6(x + 3.0) * slope


def _linear(x: Tensor) -> Tensor:
    return x


# Those with comparisons compare as Keras does: a NaN goes where it goes there.


def _hard_shrink(x: Tensor) -> Tensor:
    return torch.where(x.abs() > 0.5, x, 0.0)


def _soft_shrink(x: Tensor) -> Tensor:
    return torch.where(x > 0.5, x - 0.5, torch.where(x < -0.5, x + 0.5, 0.0))


def _sparse_plus(x: Tensor) -> Tensor:
    return torch.where(x <= -1.0, 0.0, torch.where(x < 1.0, 0.25 * torch.square(x + 1.0), x))


def _sparse_sigmoid(x: Tensor) -> Tensor:
    return torch.where(x <= -1.0, 0.0, torch.where(x >= 1.0, 1.0, 0.5 * (x + 1.0)))


def _squareplus(x: Tensor) -> Tensor:
    return 0.5 * (x + torch.sqrt(torch.square(x) + 4.0))


_PLAIN: dict[Activation, Callable[[Tensor], Tensor]] = {
    "linear": _linear,
    "relu": relu,
    "relu6": relu6,
    "elu": F.elu,
    "selu": F.selu,
    "silu": F.silu,
    "softsign": F.softsign,
    "sigmoid": UNARY["sigmoid"][0],
    "tanh": UNARY["tanh"][0],
    "softplus": UNARY["softplus"][0],
    "exp": torch.exp,
    "softmax": partial(torch.softmax, dim=-1),
    "log_softmax": partial(torch.log_softmax, dim=-1),
    "gelu": partial(gelu, form="erfc"),
    "gelu_erf": partial(gelu, form="erf"),
    "gelu_tanh": partial(gelu, form="tanh"),
    "hard_silu": F.hardswish,
    "mish": F.mish,
    "log_sigmoid": F.logsigmoid,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
    "celu": F.celu,
    "hard_tanh": F.hardtanh,
    "tanh_shrink": F.tanhshrink,
    "hard_shrink": _hard_shrink,
    "soft_shrink": _soft_shrink,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _sparse_sigmoid,
    "squareplus": _squareplus,
}
_SLOPED: dict[Activation, Callable[[Tensor, float], Tensor]] = {
    "clipped_line": _clipped_line,
    "hard_sigmoid": _hard_sigmoid,
}


def activation(name: Activation, slope: float) -> Callable[[Tensor], Tensor]:
    """The activation of that name. `slope` is that of `clipped_line` (the hard sigmoid of Keras 1 and 2) and of
    `hard_sigmoid` (that of Keras 3).

    Errors: ValueError for an unknown name.
    """
    if name in _SLOPED:
        sloped = _SLOPED[name]
        return lambda x: sloped(x, slope)
    if name not in _PLAIN:
        raise ValueError(f"no activation is called {name!r}; known are {', '.join(sorted([*_PLAIN, *_SLOPED]))}")
    return _PLAIN[name]
