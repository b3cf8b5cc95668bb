"""Rows: taking and placing them along the first axis, of tensors and of arrays of bytes alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.graph.registry import Strings

Rows = Tensor | Strings


def take(values: Rows, index: Tensor) -> Rows:
    """The rows that `index` names, in its order: `[n, ...], [k] -> [k, ...]`."""
    if isinstance(values, Tensor):
        return values.index_select(0, index.to(values.device))
    return values[index.cpu().numpy()]


def filled(shape: Sequence[int], value: Rows) -> Rows:
    """A new array of `shape` that holds `value` everywhere, broadcast from its last axes."""
    if isinstance(value, Tensor):
        return value.expand(tuple(shape)).clone()
    out = np.empty(tuple(shape), object)
    out[...] = value
    return out


def place(out: Rows, index: Tensor, values: Rows) -> Rows:
    """`out` with its rows at `index` overwritten by `values`, the last of several winning; changes `out` in place."""
    if isinstance(out, Tensor):
        out[index.to(out.device)] = values  # type: ignore[assignment]
    else:
        out[index.cpu().numpy()] = values
    return out


def ints(x: Tensor) -> list[int]:
    """The elements of a vector of integers."""
    return cast("list[int]", x.tolist())  # type: ignore[reportUnknownMemberType]


def distinct(x: Tensor, dim: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The different elements (or slices along `dim`), sorted, where each element stands among them, and their counts."""
    found = torch.unique(x, return_inverse=True, return_counts=True, dim=dim)  # type: ignore[reportUnknownMemberType]
    return cast("tuple[Tensor, Tensor, Tensor]", found)


def ranges(lengths: Tensor) -> Tensor:
    """`0 .. n-1` for each length n, joined: `[2, 0, 3] -> [0, 1, 0, 1, 2]`."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=lengths.device) - starts.repeat_interleave(lengths)


def concat(parts: Sequence[Rows]) -> Rows:
    """The parts joined along the first axis."""
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(parts)  # type: ignore[arg-type]
    return np.concatenate(parts)  # type: ignore[arg-type]
