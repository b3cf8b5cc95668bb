"""Which inputs of a tower are columns of one batch.

Each input has its own batch dimension (its leading size is dynamic) until an op requires two of them to be equal. If
the dataflow does not tell (a size gets lost in a ragged value), the tower is run with one row less: it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from porting.conversion.values import Value
from porting.names import Namer, identifier
from torch_towers.errors import InputError
from torch_towers.graph.graph import BATCH, Size, TensorSpec
from torch_towers.tower import Tower


class Equal:
    """A union-find of equal sizes, by name."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._same: dict[str, str] = {}
        for first, second in pairs:
            self.join(first, second)

    def of(self, size: str) -> str:
        """The representative of all sizes equal to `size`."""
        while (same := self._same.get(size, size)) != size:
            size = same
        return size

    def join(self, first: str, second: str) -> None:
        self._same[self.of(second)] = self.of(first)


def symbols(
    specs: Sequence[TensorSpec],
    parts: Container[str],
    outputs: Mapping[str, Size],
    known: Mapping[str, Value],
    equal: Equal,
) -> tuple[dict[str, str], str]:
    """The batch dimension of each input, and that of the outputs (its inputs are columns of the batch).

    `parts`: the inputs that are components of a sparse or ragged value, whose leading sizes are no batch. `outputs`: the
    leading size of each output, the embedding's first.
    """
    whole = [spec for spec in specs if spec.name not in parts]
    rows = {spec.name: equal.of(size) for spec in whole if (size := _own_rows(spec, known)) is not None}
    sizes = [equal.of(size) for size in outputs.values() if isinstance(size, str)]
    counts = {size: list(rows.values()).count(size) for size in rows.values()}
    batch = next((size for size in sizes if size in counts), max(counts, key=lambda size: counts[size], default=""))
    if len(counts) > 1 and batch not in sizes and counts[batch] == 1:
        batch = ""  # no two inputs share it
    return rows, batch


def named(specs: Sequence[TensorSpec], rows: Mapping[str, str], batch: str) -> tuple[TensorSpec, ...]:
    """The inputs with named batch dimensions: "batch", or "<input>_rows"."""
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
    """`rows` and `batch`, refined by running the tower for every separate input with one row less than the others."""
    alone = [name for name, size in rows.items() if list(rows.values()).count(size) == 1]
    if len(rows) < 2 or not alone:
        return rows, batch
    inputs = next((made for made in batches() if all(len(made[name]) > 2 for name in rows)), None)
    if inputs is None:
        return rows, batch
    tower = make()
    if not _takes(tower, inputs):
        return rows, batch  # dummy values that the graph refuses prove nothing
    tied = [name for name in alone if not _takes(tower, {**inputs, name: inputs[name][:-1]})]
    common = batch or (rows[tied[0]] if tied else "")
    return {name: common if name in tied else size for name, size in rows.items()}, common


def _own_rows(spec: TensorSpec, known: Mapping[str, Value]) -> str | None:
    """The name of an input's dynamic leading size; None if it has none."""
    if not spec.shape or spec.shape[0] is not None:
        return None
    shape = known[spec.name].shape if spec.name in known else None
    return shape[0] if shape and isinstance(shape[0], str) else f"{spec.name}'s own"


def _takes(tower: Tower, inputs: Mapping[str, Any]) -> bool:
    try:
        tower(dict(inputs))
    except InputError:
        return False
    return True
