"""Layout: the dtype and the shape of every value of an encoder, free sizes by name, found without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_towers.graph.dtypes import TORCH_DTYPES, dtype_name
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.reader import BATCH
from torch_towers.program import sketch
from torch_towers.tower import Tower

Dim = int | str | None
_ROWS, _LENGTHS = (2, 3, 5), (4, 7, 11)  # three sketches: a size is what fits in all of them
_APART = (1, 5, 3)  # by how much the lengths of different inputs differ, so that they are told apart


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a value. `dtype` is "size" for a Python integer, whose value is then the only one of `dims`."""

    dtype: str | None = None
    dims: tuple[Dim, ...] | None = None

    def __str__(self) -> str:
        """The shape for a comment; nothing where it is not known."""
        if self.dims is None or self.dtype == "size":
            return ""
        return f"[{', '.join('?' if dim is None else str(dim) for dim in self.dims)}]"


UNKNOWN = Known()
Layout = Mapping[str, Known]
"""By reference: "dense_1", and "top_k:1" for one of several results."""


@dataclass(frozen=True, slots=True)
class FreeSize:
    """A size that a run decides: the input of the encoder that has it, and where (None: the input is the size)."""

    name: str
    input: str
    axis: int | None


def layout(tower: Tower) -> tuple[dict[str, Known], list[FreeSize]]:
    """All values of the encoder by reference, and its free sizes; of each the first input that shows it.

    Free sizes of different inputs are different ones, but where the encoder takes them only as one.
    """
    sizes: dict[str, tuple[int, ...]] = {BATCH: _ROWS}
    found, free = _layout(tower, sizes)
    of_rows = all(name.isidentifier() or name.endswith(", 1") for name in sizes)  # as lengths of texts are
    if of_rows and any(found.get(ref, UNKNOWN).dims is None for ref in tower.encoder.graph.outputs.values()):
        together, fewer = _layout(tower, _One({BATCH: _ROWS}))
        if sum(known.dims is not None for known in together.values()) > sum(k.dims is not None for k in found.values()):
            return together, fewer
    return found, free


class _One(dict[str, tuple[int, ...]]):
    """Sizes of which all without a name are one and the same."""

    def setdefault(self, key: str, default: Any = None) -> Any:
        return super().setdefault(key if key.isidentifier() else "the only, one", default)


def _layout(tower: Tower, sizes: dict[str, tuple[int, ...]]) -> tuple[dict[str, Known], list[FreeSize]]:
    made = [_given(tower, sizes, trial) for trial in range(len(_ROWS))]
    named = [name for name in sizes if not name.isidentifier()]
    short = {name: "length" if len(named) == 1 else f"n{i}" for i, name in enumerate(named, 1)}
    sizes = {short.get(name, name): values for name, values in sizes.items()}
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


def _given(tower: Tower, sizes: dict[str, tuple[int, ...]], trial: int) -> dict[str, Any]:
    """The inputs of the encoder as meta tensors, from those of the tower through its preprocessing."""
    given: dict[str, Any] = {}
    renamed = tower.spec.renamed()
    for spec in tower.inputs:
        given[renamed.get(spec.name, spec.name)] = _made(spec, sketch.UNKNOWN, sizes, trial)
    before = tower.parts["preprocess"]
    env = sketch.sketch(before, {spec.name: given.get(spec.name, sketch.UNKNOWN) for spec in before.graph.inputs})
    found = sketch.outputs(before, env)
    return {spec.name: _made(spec, found.get(spec.name), sizes, trial) for spec in tower.encoder.graph.inputs}


def _made(spec: TensorSpec, value: Any, sizes: dict[str, tuple[int, ...]], trial: int) -> Any:
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


def _dim(size: int | str | None, place: str, sizes: dict[str, tuple[int, ...]], trial: int) -> int:
    if isinstance(size, int):
        return size
    return _ROWS[trial] if size == BATCH else _size(size if isinstance(size, str) else place, sizes)[trial]


def _size(name: str, sizes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The three values of a free size, other than those of the ones before."""
    count = 0 if isinstance(sizes, _One) else len(sizes) - 1
    return sizes.setdefault(name, tuple(n + count * step for n, step in zip(_LENGTHS, _APART, strict=True)))


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
