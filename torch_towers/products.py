"""Products of vectors with vectors, on the faster of torch's libraries."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

MANY = 1 << 20
"""Multiplications from which oneDNN takes less time than MKL: a call of it takes 10 us longer, a product half as long."""


def products(a: Tensor, b: Tensor) -> Tensor:
    """Every row of `a` with every row of `b`, `a @ b.T`: `[n, dim], [m, dim] -> [n, m]`."""
    if ONEDNN is None or a.numel() * b.shape[0] < MANY or not (plain(a) and plain(b) and eager(a, b)):
        return a @ b.mT
    return ONEDNN(a, b, None, "none", [], "")


def plain(x: Tensor) -> bool:
    """Rows of float32, one behind the other in this machine's memory."""
    return x.dtype == torch.float32 and x.ndim == 2 and x.device.type == "cpu" and x.is_contiguous()


def eager(*tensors: Tensor) -> bool:
    """True where values may be looked at and no gradient is asked for."""
    if torch.compiler.is_compiling() or any(x.device.type == "meta" for x in tensors):
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def _onednn() -> Any:
    """oneDNN's `x @ weight.T + bias`, where torch was built with it for this kind of processor; None elsewhere."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


ONEDNN = _onednn()
