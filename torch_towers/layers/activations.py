"""Activations with weights, and activations by name, for layers that take one as an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.ops.activations import clipped_line
from torch_towers.ops.math import UNARY
from torch_towers.ops.nn import relu, relu6

Activation = Literal[
    "linear", "relu", "relu6", "elu", "selu", "silu", "softsign", "sigmoid", "tanh", "softplus", "clipped_line", "hard_sigmoid"
]  # fmt: skip
"""The names that `activation` knows."""

PReLU = module()(nn.PReLU)
"""`x` where positive, else `weight * x`: `[n, features] -> [n, features]`. Source: Keras PReLU."""


def _clipped_line(x: Tensor, slope: float) -> Tensor:
    return clipped_line(x, slope=slope, offset=0.5)


def _hard_sigmoid(x: Tensor, slope: float) -> Tensor:
    return F.relu6(x + 3.0) * slope


def _linear(x: Tensor) -> Tensor:
    return x


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
