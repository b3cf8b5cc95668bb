"""Infers dtype and shape of every value of an encoder, with named dynamic sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from torch_towers.graph.dtypes import TORCH_DTYPES, dtype_name
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.reader import BATCH
from torch_towers.program import sketch
from torch_towers.tower import Tower

Dim = int | str | None
_ROWS, _LENGTHS = (2, 3, 5), (4, 7, 11)  # three sketches: a size is the formula that fits all of them
_MAX_PAIRS = 64
_APART = (1, 5, 3)  # offsets that distinguish the lengths of different inputs


@dataclass(frozen=True, slots=True)
class Known:
    """The inferred dtype and shape of a value. `dtype` is "size" for a Python integer, whose value is the only one of
    `dims`."""

    dtype: str | None = None
    dims: tuple[Dim, ...] | None = None

    def __str__(self) -> str:
        """The shape for a comment; empty if unknown."""
        if self.dims is None or self.dtype == "size":
            return ""
        return f"[{', '.join('?' if dim is None else str(dim) for dim in self.dims)}]"


UNKNOWN = Known()
Layout = Mapping[str, Known]
"""By reference: "dense_1", and "top_k:1" for a second result."""


@dataclass(frozen=True, slots=True)
class FreeSize:
    """A dynamic size: the encoder input and axis that has it (None: the input is the size itself)."""

    name: str
    input: str
    axis: int | None


def layout(tower: Tower) -> tuple[dict[str, Known], list[FreeSize]]:
    """All values of the encoder by reference, and its dynamic sizes, each with the first input that has it.

    Free sizes of different inputs are different ones, but where the encoder takes them only as one: rows of two inputs, or
    lengths of texts.
    """
    return _with_rows(tower, *_with_shapes(tower))


def _with_shapes(tower: Tower) -> tuple[dict[str, Known], list[FreeSize]]:
    """The layout with the free sizes that give most shapes."""
    sizes = _Sizes()
    best, free = _layout(tower, sizes)
    while not _is_complete(tower, best):
        trials = [_Sizes({**sizes.same, other: one}) for one, other in _pairs(sizes)]
        tried = [(*_layout(tower, trial), trial) for trial in trials]
        found, fewer, trial = max(tried, key=lambda each: _shapes(each[0]), default=(best, free, sizes))
        if _shapes(found) <= _shapes(best):
            return _all_together(tower, best, free)
        best, free, sizes = found, fewer, trial
    return best, free


def _with_rows(tower: Tower, found: dict[str, Known], free: list[FreeSize]) -> tuple[dict[str, Known], list[FreeSize]]:
    """The layout where the rows of the outputs are the batch, also if the preprocessing makes the inputs' rows of ragged
    values, of which no size is known."""
    refs, specs = tower.encoder.graph.outputs, {spec.name: spec for spec in tower.spec.outputs}
    firsts = {(found.get(ref, UNKNOWN).dims or (None,))[0] for name, ref in refs.items()
              if name in specs and (specs[name].shape or (None,))[0] == BATCH}  # fmt: skip
    rows = firsts.pop() if len(firsts) == 1 else None
    if not any(size.name == rows and size.axis == 0 for size in free) or any(size.name == BATCH for size in free):
        return found, free

    def named(dim: Dim) -> Dim:
        return BATCH if dim == rows else dim

    layout = {ref: replace(known, dims=known.dims and tuple(map(named, known.dims))) for ref, known in found.items()}
    return layout, [replace(size, name=BATCH) if size.name == rows else size for size in free]


def _is_complete(tower: Tower, found: Layout) -> bool:
    """Whether the outputs have shapes."""
    return all(found.get(ref, UNKNOWN).dims is not None for ref in tower.encoder.graph.outputs.values())


def _pairs(sizes: _Sizes) -> list[tuple[str, str]]:
    """Free sizes that may be one, since they are of the same axis; none where they are too many to try."""
    free = [name for name in sizes if not name.isidentifier()]
    found = [(one, other) for one, other in combinations(free, 2) if _axis(one) == _axis(other)]
    found += [(BATCH, name) for name in free if _axis(name) == "0"]
    return found if len(found) <= _MAX_PAIRS else []


def _axis(name: str) -> str:
    return name.rpartition(", ")[2]


def _all_together(
    tower: Tower, best: dict[str, Known], free: list[FreeSize]
) -> tuple[dict[str, Known], list[FreeSize]]:
    """The layout if all rows, or all lengths, are one, where that gives more shapes."""
    for together in ("0", "1", "01"):
        found, fewer = _layout(tower, _Sizes(together=together))
        if _shapes(found) > _shapes(best):
            best, free = found, fewer
    return best, free


def _shapes(found: Layout) -> int:
    """How many values have a shape."""
    return sum(known.dims is not None for known in found.values())


class _Sizes(dict[str, tuple[int, ...]]):
    """Sizes by name, or by input and axis: "words, 1". `same`: a size -> another one that it equals. Those of the axes
    `together` are one: the rows, and one length."""

    def __init__(self, same: Mapping[str, str] | None = None, together: str = "") -> None:
        super().__init__({BATCH: _ROWS})
        self.same, self.together = same or {}, together

    def key(self, name: str) -> str:
        """What a size is called here."""
        while name in self.same:
            name = self.same[name]
        if name.isidentifier() or _axis(name) not in self.together:
            return name
        return BATCH if _axis(name) == "0" else "the only, one"


def _layout(tower: Tower, given: _Sizes) -> tuple[dict[str, Known], list[FreeSize]]:
    made = [_given(tower, given, trial) for trial in range(len(_ROWS))]
    named = [name for name in given if not name.isidentifier()]
    short = {name: "length" if len(named) == 1 else f"n{i}" for i, name in enumerate(named, 1)}
    sizes = {short.get(name, name): values for name, values in given.items()}
    free: list[FreeSize] = []
    for spec in tower.encoder.graph.inputs:
        known = _known([trial[spec.name] for trial in made], sizes)
        for axis, dim in enumerate(known.dims or ()):
            if isinstance(dim, str) and dim in sizes and all(size.name != dim for size in free):
                free.append(FreeSize(dim, spec.name, None if known.dtype == "size" else axis))
    traced = [sketch.sketch(tower.encoder, trial) for trial in made]
    found: dict[str, Known] = {}
    for name in traced[0]:
        values = [trace[name] for trace in traced]
        if all(type(value) is tuple for value in values):
            for index in range(len(values[0])):
                found[f"{name}:{index}"] = _known([v[index] if index < len(v) else None for v in values], sizes)
        else:
            found[name] = _known(values, sizes)
    return found, free


def _given(tower: Tower, sizes: _Sizes, trial: int) -> dict[str, Any]:
    """The inputs of the encoder as meta tensors, from those of the tower through its preprocessing."""
    given: dict[str, Any] = {}
    renamed = tower.spec.renamed()
    for spec in tower.inputs:
        given[renamed.get(spec.name, spec.name)] = _made(spec, sketch.UNKNOWN, sizes, trial)
    before = tower.parts["preprocess"]
    env = sketch.sketch(before, {spec.name: given.get(spec.name, sketch.UNKNOWN) for spec in before.graph.inputs})
    found = sketch.outputs(before, env)
    return {spec.name: _made(spec, found.get(spec.name), sizes, trial) for spec in tower.encoder.graph.inputs}


def _made(spec: TensorSpec, value: Any, sizes: _Sizes, trial: int) -> Any:
    """An input; sizes of which nothing is known are free ones of its own."""
    if isinstance(value, (int, Tensor)):
        return value
    if spec.dtype == "size":
        return _size(f"{spec.name}, size", sizes)[trial]
    shape = value.shape if isinstance(value, sketch.Told) and value.shape is not None else spec.shape
    if shape is None:
        return sketch.UNKNOWN
    dims = [_dim(size, f"{spec.name}, {axis}", sizes, trial) for axis, size in enumerate(shape)]
    if spec.dtype not in TORCH_DTYPES:
        return sketch.Told(spec.dtype, tuple(dims))
    return torch.empty(dims, dtype=TORCH_DTYPES[spec.dtype], device="meta")


def _dim(size: int | str | None, place: str, sizes: _Sizes, trial: int) -> int:
    if isinstance(size, int):
        return size
    return _ROWS[trial] if size == BATCH else _size(size if isinstance(size, str) else place, sizes)[trial]


def _size(name: str, sizes: _Sizes) -> tuple[int, ...]:
    """The three values of a free size, other than those of the ones before."""
    count = len(sizes) - 1
    made = tuple(n + count * step for n, step in zip(_LENGTHS, _APART, strict=True))
    return sizes.setdefault(sizes.key(name), made)


def _known(values: Sequence[Any], sizes: Mapping[str, tuple[int, ...]]) -> Known:
    if all(type(value) is int for value in values):
        return Known("size", (_solved(values, sizes),))
    if not all(isinstance(value, (Tensor, sketch.Told)) and value.shape is not None for value in values):
        dtypes = {value.dtype if isinstance(value, sketch.Told) else _dtype(value) for value in values}
        return Known(dtypes.pop()) if len(dtypes) == 1 else UNKNOWN
    dtype = _dtype(values[0])
    ranks = {len(value.shape) for value in values}
    if len(ranks) > 1:
        return Known(dtype)
    return Known(dtype, tuple(_solved(dims, sizes) for dims in zip(*(value.shape for value in values), strict=True)))


def _dtype(value: Any) -> str | None:
    return value.dtype if isinstance(value, sketch.Told) else dtype_name(value) if isinstance(value, Tensor) else None


def _solved(values: Sequence[int | None], sizes: Mapping[str, tuple[int, ...]]) -> Dim:
    """The size that has these values in the three sketches."""
    if None in values:
        return None
    whole = tuple(values)
    if len(set(whole)) == 1:
        return whole[0]
    for name, trial in sizes.items():
        if whole == trial:
            return name
    for name, trial in sizes.items():
        times = {divmod(value, one) for value, one in zip(whole, trial, strict=True) if value is not None}
        if len(times) == 1 and (only := times.pop())[1] == 0:
            return f"{only[0]} * {name}"
    for first, one in sizes.items():
        for second, two in sizes.items():
            if whole == tuple(a * b for a, b in zip(one, two, strict=True)):
                return f"{first} * {second}"
    return None
