"""Batched execution: many rows through a tower in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.kernels.threads import on_one_thread

Part = Callable[[int, int], Tensor]
"""The embeddings of a range of rows: `[end - start, dim]`."""


def run_batches(part: Part, rows: int, batch_size: int, *, device: torch.device, to_host: bool, bar: Any) -> Tensor:
    """The embeddings of all rows, in order: `[rows, dim]`, on `device`, or on the CPU if `to_host`.

    If a CUDA device runs out of memory, the batch is halved.
    """
    parts = _in_turn(part, rows, batch_size)
    if rows <= batch_size and bar is None:
        first = next(parts)
        if len(first[1]) == rows:
            return _own(first[1], to_host)
        parts = chain([first], parts)
    if to_host and device.type == "cuda":
        parts = _to_host(parts)
    if to_host or device.type == "cpu":
        return _collected(parts, rows, bar)
    return torch.cat([found for _, found in _watched(parts, bar)])


def _in_turn(part: Part, rows: int, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    start = 0
    while start < rows:
        end = min(rows, start + batch_size)
        try:
            found = part(start, end)
        except torch.OutOfMemoryError:
            if end - start == 1:
                raise
            batch_size = (end - start + 1) // 2
            torch.cuda.empty_cache()
            continue
        yield start, found
        start = end


def _to_host(parts: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """Copies each part to the host once the next one is launched, so that the device computes while the host
    prepares."""
    last: tuple[int, Tensor, Any] | None = None
    for start, found in parts:
        copied = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        copied.copy_(found, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        if last is not None:
            last[2].synchronize()
            yield last[:2]
        last = start, copied, done
    if last is not None:
        last[2].synchronize()
        yield last[:2]


def _own(found: Tensor, to_host: bool) -> Tensor:
    """A copy outside of inference mode that shares no memory with the tower's inputs."""
    return found.cpu() if to_host and not found.is_cpu else on_one_thread(found.clone)


def _watched(parts: Iterator[tuple[int, Tensor]], bar: Any) -> Iterator[tuple[int, Tensor]]:
    try:
        for start, found in parts:
            yield start, found
            if bar is not None:
                bar.update(start + len(found) - bar.n)
    finally:
        if bar is not None:
            bar.close()


def _collected(parts: Iterator[tuple[int, Tensor]], rows: int, bar: Any) -> Tensor:
    """Joins the parts into one CPU tensor."""
    whole: Tensor | None = None
    for start, found in _watched(parts, bar):
        if whole is None:
            whole = _empty(rows, found)
        on_one_thread(whole[start : start + len(found)].copy_, found)
    assert whole is not None
    return whole


def _empty(rows: int, like: Tensor) -> Tensor:
    """Memory for `rows` rows like these. numpy asks for huge pages: faulting 4 KB pages costs more than the copy."""
    if like.dtype == torch.bfloat16:
        return torch.empty(rows, *like.shape[1:], dtype=like.dtype)
    made = np.empty((rows, *like.shape[1:]), str(like.dtype).removeprefix("torch."))
    return torch.from_numpy(made)  # type: ignore[reportUnknownMemberType]
