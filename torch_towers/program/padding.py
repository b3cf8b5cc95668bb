"""Padding: runs the encoder on rows truncated to their real length, instead of the trained length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.graph.spec import Padding

Ends = np.ndarray[Any, np.dtype[np.int64]]

Run = Callable[[dict[str, Any], float], dict[str, Any]]
"""The encoder on some rows: maps inputs and their number of positions to outputs."""


def lengths(x: Tensor, value: float) -> Ends:
    """The number of positions of each row before its padding: `[rows, length] -> [rows]`.

    A row of padding only, or with `value` between other values, counts with its full length.
    """
    real = x.numpy() != value
    counts = np.count_nonzero(real, axis=1)
    return np.where((counts > 0) & (real.argmin(1) == counts), counts, x.shape[1])


def run_cut(
    run: Run, inputs: Mapping[str, Any], padding: Sequence[Padding], *, budget: float, splittable: bool
) -> dict[str, Any]:
    """Runs `run` on `inputs` with each row truncated to its length.

    If `splittable`, rows of similar length run together, at most `budget` positions at a time (at least one row), and
    their order is restored; otherwise all rows run together, at the length of the longest.
    """
    ends = [lengths(inputs[each.input], each.value) for each in padding]
    rows = len(ends[0])
    longest = [int(end.max()) for end in ends]
    together = _cut(inputs, padding, longest), float(rows * sum(longest))
    if not splittable or together[1] <= budget or not _of_rows(inputs, rows):
        return run(*together)
    order = np.argsort(np.sum(ends, axis=0), kind="stable")
    sorted_ends = [end[order] for end in ends]
    parts: list[dict[str, Any]] = []
    for start, stop in _batches(np.sum(sorted_ends, axis=0).tolist(), budget):
        some = torch.from_numpy(order[start:stop])  # type: ignore[reportUnknownMemberType]
        longest = [int(each[start:stop].max()) for each in sorted_ends]
        taken = {name: x[some] for name, x in inputs.items()}
        parts.append(run(_cut(taken, padding, longest), float((stop - start) * sum(longest))))
        if not _of_rows(parts[-1], stop - start):
            return run(*together)
    place = torch.from_numpy(np.argsort(order))  # type: ignore[reportUnknownMemberType]
    return {name: torch.cat([part[name] for part in parts])[place.to(parts[0][name].device)] for name in parts[0]}


def _of_rows(values: Mapping[str, Any], rows: int) -> bool:
    """Whether all values are tensors with one element per row."""
    return all(isinstance(x, Tensor) and x.ndim > 0 and len(x) == rows for x in values.values())


def _cut(inputs: Mapping[str, Any], padding: Sequence[Padding], longest: Sequence[int]) -> dict[str, Any]:
    cut = dict(inputs)
    for each, length in zip(padding, longest, strict=True):
        for name in each.along:
            cut[name] = cut[name][:, :length]
    return cut


def _batches(ends: Sequence[int], budget: float) -> list[tuple[int, int]]:
    """Where rows, from the shortest to the longest, are parted so that a part has at most `budget` places, or is one
    row."""
    parts: list[tuple[int, int]] = []
    start = 0
    for stop, end in enumerate(ends):
        if stop > start and (stop + 1 - start) * end > budget:
            parts.append((start, stop))
            start = stop
    return [*parts, (start, len(ends))]


def budget_of(place_work: float) -> float:
    """How many places run together: some milliseconds of work, so that what a call costs beside it does not count."""
    return 2048.0 if not math.isfinite(place_work) or place_work <= 0 else min(max(_BATCH / place_work, 32.0), 65536.0)


_BATCH = 4e8
"""Multiplications of a batch of rows of like lengths."""
