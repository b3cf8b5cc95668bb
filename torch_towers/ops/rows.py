"""Gather and scatter along the first axis, for tensors and arrays of bytes alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Strings
from torch_towers.kernels.fast_path import plain

Rows = Tensor | Strings
Array = np.ndarray[Any, Any]


def take(values: Rows, index: Tensor) -> Rows:
    """The rows at `index`, in that order: `[n, ...], [k] -> [k, ...]`."""
    if isinstance(values, Tensor):
        return values.index_select(0, index.to(values.device))
    return values[index.cpu().numpy()]


def filled(shape: Sequence[int], value: Rows) -> Rows:
    """A new array of `shape` filled with `value`, broadcast over the last axes."""
    if isinstance(value, Tensor):
        return value.expand(tuple(shape)).clone()
    out = np.empty(tuple(shape), object)
    out[...] = value
    return out


_AS_NUMPY = frozenset((torch.float32, torch.float64, torch.int32, torch.int64, torch.bool))


def place(out: Rows, index: Tensor, values: Rows) -> Rows:
    """Overwrites the rows of `out` at `index` with `values` in-place, the last of several winning; returns `out`."""
    if isinstance(out, Tensor):
        if (
            out.is_cpu
            and isinstance(values, Tensor)
            and out.dtype == values.dtype
            and out.dtype in _AS_NUMPY
            and plain(out, index, values)
        ):
            into: Array = out.numpy()
            into[index.cpu().numpy()] = values.cpu().numpy()
        else:
            out[index.to(out.device)] = values  # type: ignore[assignment]
    else:
        out[index.cpu().numpy()] = values
    return out


def ints(x: Tensor) -> list[int]:
    """The elements of an integer vector as Python integers."""
    return cast("list[int]", x.tolist())  # type: ignore[reportUnknownMemberType]


def distinct(x: Tensor, dim: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The sorted unique elements (or slices along `dim`), the index of each element among them, and their counts."""
    found = torch.unique(x, return_inverse=True, return_counts=True, dim=dim)  # type: ignore[reportUnknownMemberType]
    return cast("tuple[Tensor, Tensor, Tensor]", found)


def ranges(lengths: Tensor) -> Tensor:
    """`0 .. n-1` for each length n, concatenated: `[2, 0, 3] -> [0, 1, 0, 1, 2]`."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=lengths.device) - starts.repeat_interleave(lengths)


def rows_of_values(splits: Tensor, count: int) -> Tensor:
    """The row of each of `count` values of a ragged tensor: `[rows + 1] -> [count]` int64.

    As TensorFlow's kernels find it: a value is of the first row that ends behind it. Errors: `InputError` for splits that
    do not start with 0, or end with another number.
    """
    ends = [int(split) for split in (*splits[:1], *splits[-1:])]
    if ends != [0, count]:
        raise InputError(
            f"row splits must start with 0 and end with the number of values, {count}, but have the ends {ends}"
        )
    limits = splits[1:].cummax(0).values if len(splits) > 1 else splits[1:]
    return torch.searchsorted(limits, torch.arange(count, dtype=splits.dtype, device=splits.device), right=True)


def concat(parts: Sequence[Rows]) -> Rows:
    """The parts concatenated along the first axis."""
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(parts)  # type: ignore[arg-type]
    return np.concatenate(parts)  # type: ignore[arg-type]
