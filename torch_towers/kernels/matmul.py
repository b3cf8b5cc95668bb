"""Matrix products on the faster of torch's libraries, MKL or oneDNN."""

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
"""Multiplications above which oneDNN is faster than MKL: its call takes 10 us longer, its product half as long on
AMD."""

_SHARED = 1 << 24
"""Multiplications that are worth waking other threads, even amid single-threaded work. Woken threads spin for a while
and compete with SentencePiece's, so the threshold is high."""


def products(a: Tensor, b: Tensor, bias: Tensor | None = None, *, relu: bool = False, no_nan: bool = False) -> Tensor:
    """`a @ b.T + bias`, or its relu: `[n, dim], [m, dim], [m] -> [n, m]`.

    `no_nan`: the relu maps NaN to 0.
    """
    if _onednn is not None and readable():  # a captured graph must not compare its sizes
        count = a.numel() * b.shape[0]
        if count >= MANY and _takes(a, b, bias):
            operands: Any = (a, b, bias, "relu" if relu and no_nan else "none", [], "")
            y: Tensor = on_all_threads(_onednn, *operands) if count >= _SHARED else _onednn(*operands)
            return y.relu_() if relu and not no_nan else y  # oneDNN's own relu maps NaN to 0
    y = F.linear(a, b, bias)
    return rectified(y, no_nan) if relu else y


def rectified(x: Tensor, no_nan: bool) -> Tensor:
    """The relu, with `no_nan` mapping NaN to 0: `[...] -> [...]`."""
    return F.relu(torch.nan_to_num(x, 0.0, math.inf, -math.inf) if no_nan else x)


def are_rows(x: Tensor) -> bool:
    """Whether this is a contiguous float32 matrix on the CPU."""
    return x.dtype == torch.float32 and x.ndim == 2 and x.is_cpu and x.is_contiguous()


def _takes(a: Tensor, b: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN gives torch's result: for plain contiguous rows of matching sizes."""
    if not (are_rows(a) and are_rows(b) and a.shape[1] == b.shape[1]):
        return False
    if bias is None:
        return plain(a, b)
    return bias.is_cpu and bias.dtype == torch.float32 and bias.shape == b.shape[:1] and plain(a, b, bias)


def _found() -> Any:
    """oneDNN's `x @ weight.T + bias` if torch has it for this processor, else None.

    On AMD it takes half of MKL's time. torch exposes it only under this private name; without it every product is
    `F.linear`.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_onednn = _found()
