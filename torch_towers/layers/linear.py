"""Dense layers: torch's own, and their products on the faster library where nothing but numbers is asked for."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.kernels.fast_path import untouched
from torch_towers.kernels.matmul import products

Linear = module()(nn.Linear)
"""`x @ weight.T + bias`: `[..., in] -> [..., out]`. It is torch's own class, which others look for: adapters, quantization.

Source: tf.raw_ops.MatMul and BiasAdd, Keras Dense.
"""


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)`, without what a call of a module costs where it would change nothing: `[..., in] -> [..., out]`."""
    return products(x, layer.weight, layer.bias) if untouched(layer, nn.Linear) else layer(x)  # type: ignore[reportArgumentType]


def linear_relu(layer: nn.Module, x: Tensor) -> Tensor:
    """`relu(layer(x))`, in the memory of `layer(x)`: `[..., in] -> [..., out]`. Source: Keras Dense with activation "relu"."""
    return products(x, layer.weight, layer.bias, relu=True) if untouched(layer, nn.Linear) else F.relu(layer(x))  # type: ignore[reportArgumentType]
