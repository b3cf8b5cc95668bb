"""Dense layers: torch's own products, and faster ones where nothing but numbers is asked for."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.batches import on_all_threads
from torch_towers.calls import only_numbers, untouched
from torch_towers.native import linear as _native
from torch_towers.products import MANY
from torch_towers.products import ONEDNN as _ONEDNN
from torch_towers.registry import module

_FEW = 1 << 21  # products (rows x inputs x outputs) up to which the native code takes less time than oneDNN: 25 us
# Products that are worth waking other threads for, also where what is around them is not. They spin for a while afterwards, in the
# way of SentencePiece's: so no fewer.
_SHARED = 1 << 24
_LARGE = 1 << 20  # weights (4 MB) that no cache near a processor's core holds: the native code reads them too often


Linear = module()(nn.Linear)
"""`x @ weight.T + bias`: `[..., in] -> [..., out]`. It is torch's own class, which others look for: adapters, quantization.

Source: tf.raw_ops.MatMul and BiasAdd, Keras Dense.
"""


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)`, without what a call of a module costs where it would change nothing: `[..., in] -> [..., out]`."""
    return _product(layer, x, relu=False) if untouched(layer, Linear) else layer(x)


def linear_relu(layer: nn.Module, x: Tensor) -> Tensor:
    """`relu(layer(x))`, in one pass where that is possible: `[..., in] -> [..., out]`. Source: Keras Dense with activation "relu"."""
    return _product(layer, x, relu=True) if untouched(layer, Linear) else F.relu(layer(x))


def _product(layer: nn.Module, x: Tensor, *, relu: bool) -> Tensor:
    if only_numbers():
        weight, bias = layer._parameters.get("weight"), layer._parameters.get("bias")
        if weight is not None and _takes(x, weight, bias):
            weights = weight.numel()
            products = x.shape[0] * weights
            if products <= _FEW and weights <= _LARGE and _native is not None:
                return _few(x, weight, bias, relu)
            if products >= MANY and _ONEDNN is not None:
                operands: Any = (x, weight, bias, "none", [], "")  # its own relu makes 0 of NaN
                y: Tensor = on_all_threads(_ONEDNN, *operands) if products >= _SHARED else _ONEDNN(*operands)
                return y.relu_() if relu else y
    y = F.linear(x, layer.weight, layer.bias)  # type: ignore[reportArgumentType]
    return F.relu(y) if relu else y


def _takes(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are plain float32 matrices on the CPU that fit each other, and stay float32."""
    return (
        type(x) is Tensor
        and type(weight) is nn.Parameter
        and x.is_cpu
        and weight.is_cpu
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and x.ndim == 2
        and x.shape[1] == weight.shape[1]
        and (bias is None or (type(bias) is nn.Parameter and bias.is_cpu and bias.dtype is torch.float32))
        and not torch.is_autocast_enabled("cpu")
    )


def _few(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    rows, (outputs, inputs) = x.shape[0], weight.shape
    if not (x.is_contiguous() and weight.is_contiguous()):
        x, weight = x.contiguous(), weight.contiguous()
    if bias is not None and (bias.numel() != outputs or not bias.is_contiguous()):
        bias = bias.expand(outputs).contiguous()
    y = x.new_empty((rows, outputs))
    at = 0 if bias is None else bias.data_ptr()
    _native(x.data_ptr(), weight.data_ptr(), at, y.data_ptr(), rows, inputs, outputs, relu)
    return y
