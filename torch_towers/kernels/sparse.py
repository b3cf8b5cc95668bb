"""Integer kernels of sparse tensors in the native core. Each function returns None if torch ops must do the work
instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.kernels import native
from torch_towers.kernels.fast_path import readable

Array = np.ndarray[Any, Any]


def fill_rows(indices: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Adds an entry to each of `count` rows that is empty: indices `[n, rank]`, the new position of each entry `[n]`,
    empty rows `[count]`."""
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
    """`segment_chunks` for ascending ids in `[0, count)`."""
    given = _integers(ids)
    if given is None:
        return None
    chunk, owners, lengths = np.empty(given.size, np.int64), np.empty(given.size, np.int64), np.empty(count, np.int64)
    used = native.core.chunks(given, chunk, owners, lengths)
    return None if used < 0 else (_tensor(chunk), _tensor(owners[:used]), _tensor(lengths))


def bags(indices: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """What `sparse_bags` gives for `[n, rank]` indices and `[n]` values in `count` rows."""
    if len(indices) != len(values) or values.is_floating_point() or not indices.shape[1]:
        return None
    given, numbers = _integers(indices), _integers(values)
    if given is None or numbers is None:
        return None
    ids, chunk, owners = (np.empty(numbers.size, np.int64) for _ in range(3))
    lengths = np.empty(count, np.int64)
    found = native.core.bags(given, indices.shape[1], numbers, ids, chunk, owners, lengths)
    if found is None:
        return None
    used, chunked = found
    return _tensor(ids[:used]), _tensor(chunk[:used]), _tensor(owners[:chunked]), _tensor(lengths)


def flat(indices: Tensor, sizes: list[int]) -> tuple[Tensor, bool] | None:
    """Each of `[n, rank]` indices as its place in a tensor of `sizes`, laid flat: `[n]`, and whether the places ascend; None
    where one lies outside."""
    given = _integers(indices) if sizes and indices.shape[-1] == len(sizes) else None
    if given is None:
        return None
    out = np.empty(len(given), np.int64)
    found = native.core.places(given, tuple(sizes), out)
    return (_tensor(out), found == 2) if found else None


def are_inside(indices: Tensor, sizes: list[int]) -> bool:
    """Whether each of `[..., k]` indices is known to lie within the first k of `sizes`."""
    width = indices.shape[-1]
    given = _integers(indices) if 0 < width <= len(sizes) else None
    return given is not None and bool(native.core.places(given, tuple(sizes[:width]), None))


def cross(
    hashes: Sequence[Array], lengths: Sequence[Tensor], start: int | None, buckets: int
) -> tuple[Tensor, Tensor, int] | None:
    """All combinations of the columns' values in each row, the last column varying fastest: their indices `[n, 2]`, their
    buckets `[n]`, and how many the longest row has."""
    rows = [_integers(length) for length in lengths]
    if not rows or any(length is None for length in rows):
        return None
    columns = tuple(zip(map(np.ascontiguousarray, hashes), rows, strict=True))
    done = native.core.cross(columns, len(lengths[0]), start, buckets)
    if done is None:
        return None
    where, found, longest = done
    return _counted(where).reshape(-1, 2), _counted(found), longest


def _counted(data: bytearray) -> Tensor:
    """Integers that the core returned as bytes."""
    return torch.frombuffer(data, dtype=torch.int64) if data else torch.empty(0, dtype=torch.int64)


def are_below(indices: Tensor, limit: int) -> bool:
    """Whether all indices are known to be in `[0, limit)`, for indices whose values may be read."""
    if native.core is None or not indices.is_cpu or indices.dtype not in _INDICES:
        return False
    return native.core.below(indices.contiguous().numpy(), limit)


def of_lengths(lengths: Tensor, values: int) -> tuple[Tensor, int] | None:
    """The indices `[values, 2]` of the values of rows of these `[rows]` lengths, and the longest; None where they do not add up to
    `values`."""
    given = _integers(lengths)
    if given is None:
        return None
    out = np.empty((values, 2), np.int64)
    longest = native.core.spread(given, out)
    return None if longest < 0 else (_tensor(out), longest)


def of_rows(splits: Tensor, values: int) -> tuple[Tensor, Tensor] | None:
    """The indices `[n, 2]` of the values of ragged rows, and the sparse shape of these; None where the splits are not plain."""
    given = _integers(splits)
    if given is None or len(given) < 1 or given[0] != 0:
        return None
    found = of_lengths(_tensor(given[1:] - given[:-1]), values)
    return None if found is None else (found[0], torch.tensor((len(given) - 1, found[1])))


def histogram(values: Tensor, splits: Tensor | None, size: int, dtype: torch.dtype, once: bool) -> Tensor | None:
    """How often each of `0 .. size-1` occurs in each row, or whether it does: `-> [rows, size]`.

    Rows are those of a matrix, or those of `[n]` values that `[rows + 1]` splits name.
    """
    if dtype not in _NUMBERS or values.is_floating_point():
        return None
    given = _integers(values)
    if given is None or size < 0:  # in this order: while exporting, the size may not be known
        return None
    ends = np.arange(len(values) + 1) * values.shape[1] if splits is None else _integers(splits)
    if ends is None or not ends.size:
        return None
    out = np.zeros((ends.size - 1, size), _NUMBERS[dtype])
    return _tensor(out) if native.core.histogram(given, ends, once, out) else None


_INDICES = frozenset((torch.int32, torch.int64))
_NUMBERS: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.int64: np.int64}
_DIVISORS = {"sum": 0, "mean": 1, "sqrtn": 2}


def segment_sums(data: Tensor, rows: Tensor, lengths: Tensor, reduction: str) -> Tensor | None:
    """What `sparse_segment_reduce` gives for a matrix of float32, without a copy of its rows."""
    if data.dtype != torch.float32 or data.ndim != 2 or not data.is_contiguous() or not data.is_cpu:
        return None
    picked, sizes = _integers(rows), _integers(lengths)
    if picked is None or sizes is None:
        return None
    out = np.empty((sizes.size, data.shape[1]), np.float32)
    table = data.detach().numpy()
    return _tensor(out) if native.core.segment_sums(table, picked, sizes, _DIVISORS[reduction], out) else None


def distinct(x: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The unique integers in order of first occurrence, the index of each element among them, and their counts."""
    given = _integers(x) if x.dtype in (torch.int64, torch.int32) and x.ndim == 1 else None
    if given is None:
        return None
    values, inverse, counts = (np.empty(given.size, np.int64) for _ in range(3))
    used = native.core.distinct(given, values, inverse, counts)
    return _tensor(values[:used]).to(x.dtype), _tensor(inverse), _tensor(counts[:used])


def _integers(x: Tensor) -> Array | None:
    """CPU integers as a contiguous int64 array."""
    if native.core is None or not readable(x) or not x.is_cpu:
        return None
    return (x if x.dtype == torch.int64 else x.to(torch.int64)).contiguous().numpy()


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array)  # type: ignore[reportUnknownMemberType]
