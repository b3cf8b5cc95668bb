"""Products of vectors with vectors, on the faster of torch's libraries."""

from __future__ import annotations

import math
import platform
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from torch_towers.kernels.fast_path import plain, readable
from torch_towers.kernels.threads import on_all_threads

MANY = 1 << 21
"""Multiplications from which oneDNN takes less time than MKL: a call of it takes 10 us longer, a product on AMD half as long."""

_SHARED = 1 << 24
"""Multiplications that are worth waking other threads for, also where what is around them is not. They spin for a while
afterwards, in the way of SentencePiece's: so no fewer."""


def products(a: Tensor, b: Tensor, bias: Tensor | None = None, *, relu: bool = False, no_nan: bool = False) -> Tensor:
    """Every row of `a` with every row of `b`, `a @ b.T + bias`, or its relu: `[n, dim], [m, dim], [m] -> [n, m]`.

    With `no_nan` the relu of NaN is 0.
    """
    if _onednn is not None and readable():  # while a graph is captured, its sizes are not compared
        count = a.numel() * b.shape[0]
        if count >= MANY and _takes(a, b, bias):
            operands: Any = (a, b, bias, "relu" if relu and no_nan else "none", [], "")
            y: Tensor = on_all_threads(_onednn, *operands) if count >= _SHARED else _onednn(*operands)
            return y.relu_() if relu and not no_nan else y  # its own relu makes 0 of NaN
    y = F.linear(a, b, bias)
    return rectified(y, no_nan) if relu else y


def rectified(x: Tensor, no_nan: bool) -> Tensor:
    """The relu, with `no_nan` that of NaN being 0: `[...] -> [...]`."""
    return F.relu(torch.nan_to_num(x, 0.0, math.inf, -math.inf) if no_nan else x)


def are_rows(x: Tensor) -> bool:
    """Whether these are rows of float32, one behind the other in this machine's memory."""
    return x.dtype == torch.float32 and x.ndim == 2 and x.is_cpu and x.is_contiguous()


def _takes(a: Tensor, b: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN gives what torch gives: for plain rows that fit each other."""
    if not (are_rows(a) and are_rows(b) and a.shape[1] == b.shape[1]):
        return False
    if bias is None:
        return plain(a, b)
    return bias.is_cpu and bias.dtype == torch.float32 and bias.shape == b.shape[:1] and plain(a, b, bias)


def _found() -> Any:
    """oneDNN's `x @ weight.T + bias`, where torch was built with it for this kind of processor; None elsewhere.

    On AMD it takes half of MKL's time. torch has no other name for it: without this one every product is `F.linear`.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_onednn = _found()
