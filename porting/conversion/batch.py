"""Batch: which inputs of a tower are columns of one batch.

Each input has rows of its own (its first size is free) until the graph makes two equal: it joins them in an op that wants equal
sizes. Where the dataflow does not tell (a size gets lost in a ragged value), the tower is asked: it refuses one row less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from porting.components import component_of
from porting.conversion.values import Value
from porting.names import Namer, identifier
from torch_towers.errors import InputError
from torch_towers.graph.graph import BATCH, Size, TensorSpec
from torch_towers.tower import Tower


class Equal:
    """Sizes that are equal, by their names."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._same: dict[str, str] = {}
        for first, second in pairs:
            self.join(first, second)

    def of(self, size: str) -> str:
        """One name for `size` and all that are equal to it."""
        while (same := self._same.get(size, size)) != size:
            size = same
        return size

    def join(self, first: str, second: str) -> None:
        self._same[self.of(second)] = self.of(first)


def symbols(
    specs: Sequence[TensorSpec], outputs: Mapping[str, Size], known: Mapping[str, Value], equal: Equal
) -> tuple[dict[str, str], str]:
    """The name of the rows of each input that has some, and of those that the outputs have (a column of these is the batch's).

    `outputs`: the first size of each output, that which is the embedding first.
    """
    rows = {spec.name: equal.of(size) for spec in specs if (size := _own_rows(spec, specs, known)) is not None}
    sizes = [equal.of(size) for size in outputs.values() if isinstance(size, str)]
    counts = {size: list(rows.values()).count(size) for size in rows.values()}
    batch = next((size for size in sizes if size in counts), max(counts, key=lambda size: counts[size], default=""))
    if len(counts) > 1 and batch not in sizes and counts[batch] == 1:
        batch = ""  # no two inputs have it in common
    return rows, batch


def named(specs: Sequence[TensorSpec], rows: Mapping[str, str], batch: str) -> tuple[TensorSpec, ...]:
    """The inputs with names for their rows: "batch", or "<input>_rows"."""
    names = Namer()
    sizes = {batch: names(BATCH)}
    found: list[TensorSpec] = []
    for spec in specs:
        if spec.name in rows and spec.shape:
            own = rows[spec.name]
            if own not in sizes:
                sizes[own] = names(f"{identifier(spec.name)}_rows")
            spec = replace(spec, shape=(sizes[own], *spec.shape[1:]))
        found.append(spec)
    return tuple(found)


def tried(
    rows: dict[str, str], batch: str, make: Callable[[], Tower], batches: Callable[[], Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, str], str]:
    """`rows` and `batch` after asking the tower of every input that stands alone whether it may have a row less than the others."""
    alone = [name for name, size in rows.items() if list(rows.values()).count(size) == 1]
    if len(rows) < 2 or not alone:
        return rows, batch
    inputs = next((made for made in batches() if all(len(made[name]) > 2 for name in rows)), None)
    if inputs is None:
        return rows, batch
    tower = make()
    if not _takes(tower, inputs):
        return rows, batch  # made-up values that the graph refuses tell nothing
    tied = [name for name in alone if not _takes(tower, {**inputs, name: inputs[name][:-1]})]
    common = batch or (rows[tied[0]] if tied else "")
    return {name: common if name in tied else size for name, size in rows.items()}, common


def _own_rows(spec: TensorSpec, specs: Sequence[TensorSpec], known: Mapping[str, Value]) -> str | None:
    """The name of the free first size of an input; None where it has none, or is a part of a sparse or ragged value."""
    if not spec.shape or spec.shape[0] is not None or component_of(spec.name, {other.name for other in specs}):
        return None
    shape = known[spec.name].shape if spec.name in known else None
    return shape[0] if shape and isinstance(shape[0], str) else f"{spec.name}'s own"


def _takes(tower: Tower, inputs: Mapping[str, Any]) -> bool:
    try:
        tower(dict(inputs))
    except InputError:
        return False
    return True
