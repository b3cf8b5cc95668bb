"""The integers of sparse tensors by the native core: each function gives None where the ops have to do it by torch's calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.kernels import native
from torch_towers.kernels.fast_path import readable

Array = np.ndarray[Any, Any]


def fill_rows(indices: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """`[n, rank]` indices with one in each of `count` rows that has none, where each went `[n]`, and which rows were empty `[count]`."""
    given = _integers(indices)
    if given is None or not given.shape[1]:
        return None
    elements, rank = given.shape
    out, position, empty = (
        np.empty((elements + count, rank), np.int64),
        np.empty(elements, np.int64),
        np.empty(count, bool),
    )
    total = native.core.fill_rows(given, rank, out, position, empty)
    return None if total < 0 else (_tensor(out[:total]), _tensor(position), _tensor(empty))


def chunks(ids: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """What `segment_chunks` gives for ascending ids in `[0, count)`."""
    given = _integers(ids)
    if given is None:
        return None
    chunk, owners, lengths = np.empty(given.size, np.int64), np.empty(given.size, np.int64), np.empty(count, np.int64)
    used = native.core.chunks(given, chunk, owners, lengths)
    return None if used < 0 else (_tensor(chunk), _tensor(owners[:used]), _tensor(lengths))


def distinct(x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The different integers in the order of their first occurrence, the place of each element among them, and their counts."""
    given = _integers(x) if x.dtype in (torch.int64, torch.int32) and x.ndim == 1 else None
    if given is None:
        return None
    values, inverse, counts = (np.empty(given.size, np.int64) for _ in range(3))
    used = native.core.distinct(given, values, inverse, counts)
    return _tensor(values[:used]).to(x.dtype), _tensor(inverse), _tensor(counts[:used])


def _integers(x: Tensor) -> Array | None:
    """Integers in this machine's memory, as int64s one after another."""
    if native.core is None or not readable(x) or not x.is_cpu:
        return None
    return x.to(torch.int64).contiguous().numpy()


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array)  # type: ignore[reportUnknownMemberType]
