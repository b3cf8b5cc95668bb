"""Dense layers: torch's own class, with a fast path for plain tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.kernels.fast_path import untouched
from torch_towers.kernels.matmul import products, rectified

Linear = module()(nn.Linear)
"""`x @ weight.T + bias`: `[..., in] -> [..., out]`. It is torch's own class, which adapters and quantization look for.

Source: tf.raw_ops.MatMul and BiasAdd, Keras Dense.
"""


@module()
class EinsumDense(nn.Module):
    """`einsum(equation, x, weight) + bias`, as in `abc,bcd->abd`, where each place `b` has a matrix of its own.

    `equation` names the axes of `x`, of the weight, whose sizes are `shape`, and of the result. `bias_shape`: that of the
    bias, which broadcasts to the result; None without a bias. Source: Keras EinsumDense, tf.raw_ops.Einsum.
    """

    def __init__(self, equation: str, shape: tuple[int, ...], bias_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.equation = equation
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = None if bias_shape is None else nn.Parameter(torch.zeros(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        products = torch.einsum(self.equation, x, self.weight)
        return products if self.bias is None else products + self.bias

    def extra_repr(self) -> str:
        bias = "" if self.bias is None else f", bias={list(self.bias.shape)}"
        return f"{self.equation!r}, {list(self.weight.shape)}{bias}"


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)`, without the overhead of a module call if nothing can observe the difference: `[..., in] -> [...,
    out]`."""
    return products(x, layer.weight, layer.bias) if untouched(layer, nn.Linear) else layer(x)  # type: ignore[reportArgumentType]


def linear_relu(layer: nn.Module, x: Tensor, *, no_nan: bool = False) -> Tensor:
    """`relu(layer(x))`, the relu in-place: `[..., in] -> [..., out]`; `no_nan` as in the op `relu`.

    Source: Keras Dense with activation "relu".
    """
    if not untouched(layer, nn.Linear):
        return rectified(layer(x), no_nan)
    return products(x, layer.weight, layer.bias, relu=True, no_nan=no_nan)  # type: ignore[reportArgumentType]
