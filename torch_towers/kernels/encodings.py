"""Encodings of numbers in the native core. Each function returns None if torch ops must do the work instead."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.kernels import native
from torch_towers.kernels.fast_path import plain, readable

Array = np.ndarray[Any, Any]

_INTEGERS = frozenset((torch.int32, torch.int64))
_NUMBERS: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.int64: np.int64, torch.int32: np.int32}


def one_hot(ids: Tensor, depth: int, on: Tensor, off: Tensor) -> Tensor | None:
    """`on` at the place of each id along a new last axis of length `depth`, `off` elsewhere: `[...] -> [..., depth]`."""
    if native.core is None or not plain(ids, on, off) or not (ids.is_cpu and on.is_cpu and off.is_cpu):
        return None
    dtype = _NUMBERS.get(on.dtype)
    if dtype is None or off.dtype != on.dtype or ids.dtype not in _INTEGERS or depth < 0:
        return None
    out = np.empty((*ids.shape, depth), dtype)
    operands = (x.detach().contiguous().numpy() for x in (ids, on, off))
    return torch.from_numpy(out) if native.core.one_hot(*operands, out) else None  # type: ignore[reportUnknownMemberType]


def padded(values: Array, lengths: Array, width: int, pad: int) -> Array | None:
    """Consecutive rows of the given lengths, cut or padded with `pad` to `width`: `[n], [rows] -> [rows, width]`."""
    if native.core is None or values.dtype.kind != "i" or values.dtype.itemsize not in (4, 8):
        return None
    out = np.empty((len(lengths), width), values.dtype)
    sizes, fill = lengths.astype(np.int64, copy=False), np.array(pad, values.dtype)
    return out if native.core.pad_rows(np.ascontiguousarray(values), sizes, fill, out) else None


def buckets(x: Tensor, boundaries: tuple[float, ...], flush: bool) -> Tensor | None:
    """The number of boundaries less than or equal to each float32: `[...] -> [...]` int32. `flush` takes denormals for zero."""
    if native.core is None or x.dtype != torch.float32 or not readable(x) or not x.is_cpu:
        return None
    out = np.empty(tuple(x.shape), np.int32)
    native.core.buckets(x.detach().contiguous().numpy(), _edges(boundaries), flush, out)
    return torch.from_numpy(out)  # type: ignore[reportUnknownMemberType]


@lru_cache(maxsize=256)
def _edges(boundaries: tuple[float, ...]) -> Array:
    return np.array(boundaries, np.float32)
