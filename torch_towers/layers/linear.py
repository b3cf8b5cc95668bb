"""Dense layers: torch's own."""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.registry import module

_ROWS = 128  # from here on oneDNN's product takes less time than MKL's, twice less on AMD; below, its calls take longer


def _onednn() -> Any:
    """oneDNN's `x @ weight.T + bias`, where torch was built with it for this kind of processor; None elsewhere."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONEDNN = _onednn()


@module()
class Linear(nn.Linear):
    """`x @ weight.T + bias`: `[..., in] -> [..., out]`; `nn.Linear`, and faster for many rows where no gradient is asked for.

    Source: tf.raw_ops.MatMul and BiasAdd, Keras Dense.
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not self._takes(input):
            return F.linear(input, self.weight, self.bias)
        return _ONEDNN(input, self.weight, self.bias, "none", [], "")

    def _takes(self, x: Tensor) -> bool:
        if _ONEDNN is None or x.ndim != 2 or x.shape[0] < _ROWS:
            return False
        return x.dtype == self.weight.dtype == torch.float32 and x.device.type == self.weight.device.type == "cpu"
