"""Attention, recurrent layers and softmax over many small rows, each in one native pass. Each function returns None if
torch must do the work instead.

torch's kernels take a microsecond for each head of a row, or for each step; they are the faster ones where rows are
large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.kernels import native
from torch_towers.kernels.fast_path import plain, readable
from torch_towers.kernels.threads import spread, threads

Array = np.ndarray[Any, Any]

_FEW_HEADS = 8
"""Heads of all rows below which torch's attention is faster: its call takes ten microseconds less."""
_LARGEST_SCORES, _LARGEST_KEYS = 1 << 12, 1 << 10
"""Multiplications of one head's scores, and numbers in its keys and values, above which torch's attention is faster."""
_FEW_NUMBERS, _LARGEST_ROW = 1 << 9, 32
"""Numbers in all below which torch's softmax is faster, and numbers of a row above which it is."""
_LARGEST_CELL, _LARGEST_SLOW_CELL = 1 << 14, 1 << 17
"""Weights of a recurrent layer above which torch is faster: with a kernel that takes all rows in one product per step, and
with its slower ones (GRU, packed steps, step by step)."""
_SHARED = 1 << 24
"""Multiplications of a call that are worth waking other threads."""

ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "clipped_line", "hard_sigmoid")
"""The activations of recurrent layers, in the order of `native/layers.c`."""
CELLS = ("rnn", "lstm", "gru reset after", "gru reset before")
"""The recurrent layers, in the same order."""


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, empty: bool
) -> Tensor | None:
    """The op `attention` for heads of a few positions: `[n, heads, t, dim], [n, heads, s, dim], [n, heads, s, out] ->
    [n, heads, t, out]`; without heads the axis is left out."""
    if native.layers is None or query.ndim not in (3, 4) or not _fits(query, key, value):
        return None
    if mask is not None:
        if not plain(mask) or not mask.is_cpu or mask.dtype not in (torch.bool, torch.float32):
            return None
        shape = (*query.shape[:-1], key.shape[-2])
        if mask.ndim > len(shape) or any(a not in (1, b) for a, b in zip(mask.shape[::-1], shape[::-1], strict=False)):
            return None
        mask = mask.expand(shape)
    if query.ndim == 3:
        mask = None if mask is None else mask.unsqueeze(1)
        return _attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1), mask, scale, empty).squeeze(1)
    return _attention(query, key, value, mask, scale, empty)


def _fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these are operands of the native attention, few enough and many enough for it."""
    if not readable() or query.shape[:-2].numel() < _FEW_HEADS or not plain(query, key, value):
        return False
    if not all(_float(each) and each.ndim == query.ndim and each.numel() for each in (query, key, value)):
        return False
    (t, dim), (s, width) = query.shape[-2:], value.shape[-2:]
    if key.shape != (*query.shape[:-2], s, dim) or value.shape[:-2] != query.shape[:-2]:
        return False
    return t * s * dim <= _LARGEST_SCORES and s * (dim + width) <= _LARGEST_KEYS


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, empty: bool) -> Tensor:
    rows, heads, t, dim = query.shape
    out = np.empty((rows, t, heads, value.shape[-1]), np.float32)
    arrays = [_array(query), _array(key), _array(value), None if mask is None else _array(mask), out]

    def run(part: slice) -> None:
        some = (each if each is None else each[part] for each in arrays)
        native.layers.attention(*some, scale, empty, native.kernel)

    _shared(run, rows, heads * t * key.shape[2] * (dim + value.shape[-1]))
    return _tensor(out).transpose(1, 2)


class Cell(NamedTuple):
    """A recurrent layer of `CELLS` with its `ACTIVATIONS`. `zero`: steps that the mask leaves out give zeros."""

    kind: str
    activation: str
    gate: str
    zero: bool
    slope: float
    forget_bias: float

    @property
    def known(self) -> bool:
        return self.kind in CELLS and self.activation in ACTIVATIONS and self.gate in ACTIVATIONS

    @property
    def numbers(self) -> tuple[int, int, int, bool, float, float]:
        names = CELLS.index(self.kind), ACTIVATIONS.index(self.activation), ACTIVATIONS.index(self.gate)
        return (*names, *self[3:])


def recurrent(
    cell: Cell, x: Tensor, mask: Tensor | None, weights: Sequence[Tensor | None], states: Sequence[Tensor], *,
    sequences: bool, slow: bool,
) -> tuple[Tensor | None, Tensor, tuple[Tensor, ...]] | None:  # fmt: skip
    """The outputs of all steps (with `sequences`), the last one, and the last states of a layer of few units, as in
    `Recurrent`.

    `weights`: those of the inputs and of the state, gates in torch's order, and the biases of both, which may be None.
    `slow`: whether torch's own way is a slow one.
    """
    floats = [x, *(each for each in weights if each is not None), *states]
    if native.layers is None or not cell.known or not all(map(_float, floats)) or not plain(*floats):
        return None
    of_inputs, of_state = cast("tuple[Tensor, Tensor]", weights[:2])
    count, size = of_inputs.numel() + of_state.numel(), of_state.shape[1]
    if (
        count > (_LARGEST_SLOW_CELL if slow else _LARGEST_CELL)
        or not x.numel()
        or not size
        or any(each.shape != (len(x), size) for each in states)
    ):
        return None
    if mask is not None and (
        mask.dtype != torch.bool or mask.shape != x.shape[:2] or not mask.is_cpu or not plain(mask)
    ):
        return None
    rows, length = x.shape[:2]
    sequence = np.empty((rows, length, size), np.float32) if sequences else None
    last = np.empty((3 if cell.kind == "lstm" else 2, rows, size), np.float32)
    given, masked, first = _array(x), None if mask is None else _array(mask), tuple(map(_rows, states))
    fixed, numbers = tuple(None if each is None else _rows(each) for each in weights), cell.numbers

    def run(part: slice) -> None:
        native.layers.recurrent(
            given[part], None if masked is None else masked[part], fixed, tuple(each[part] for each in first),
            None if sequence is None else sequence[part], last[0, part], tuple(last[1:, part]), numbers, native.kernel,
        )  # fmt: skip

    _shared(run, rows, length * count)
    output, *after = _tensor(last).unbind()
    return None if sequence is None else _tensor(sequence), output, tuple(after)


def softmax(x: Tensor) -> Tensor | None:
    """Softmax over the last axis, if it is short: `[..., n] -> [..., n]`."""
    if native.layers is None or not _float(x) or not plain(x):
        return None
    if not x.ndim or x.numel() < _FEW_NUMBERS or x.shape[-1] > _LARGEST_ROW:
        return None
    given = _rows(x)
    out = np.empty(given.shape, np.float32)
    flat, to = given.reshape(-1, given.shape[-1]), out.reshape(-1, given.shape[-1])
    _shared(lambda part: native.layers.softmax(flat[part], to[part], native.kernel), len(flat), 8 * flat.shape[1])
    return _tensor(out)


def _float(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.is_cpu


def _array(x: Tensor) -> Array:
    return x.detach().numpy()  # type: ignore[reportUnknownMemberType]


def _rows(x: Tensor) -> Array:
    return np.ascontiguousarray(_array(x))


def _tensor(x: Array) -> Tensor:
    return torch.from_numpy(x)  # type: ignore[reportUnknownMemberType]


def _shared(run: Callable[[slice], None], rows: int, work: int) -> None:
    """Runs `run` on all rows, which take `work` multiplications each, by several threads if they pay off."""
    if rows * work < _SHARED or threads() < 2:
        run(slice(0, rows))
        return

    def part(some: range) -> list[None]:
        run(slice(some.start, some.stop))
        return []

    spread(part, rows)
