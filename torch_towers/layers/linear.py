"""Dense layers: torch's own class, with a fast path for plain tensors."""

from __future__ import annotations

from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.kernels.fast_path import untouched
from torch_towers.kernels.matmul import products, rectified

Linear = module()(nn.Linear)
"""`x @ weight.T + bias`: `[..., in] -> [..., out]`. It is torch's own class, which adapters and quantization look for.

Source: tf.raw_ops.MatMul and BiasAdd, Keras Dense.
"""


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
