"""Route: the parts of a tower's graphs that an output needs, and what is known of their costs."""

from __future__ import annotations

from typing import Any

from torch_towers.graph.graph import Size
from torch_towers.graph.narrow import narrowed
from torch_towers.graph.spec import TowerSpec
from torch_towers.program.cost import Cost
from torch_towers.program.program import Program
from torch_towers.program.rows import RowParts


class Route:
    """The way from a tower's inputs to all outputs of its encoder, or to `only` one and the checks.

    `inputs` are the encoder's inputs on this way and whether they are floats; `padding` where their rows end.
    """

    def __init__(self, spec: TowerSpec, only: str | None = None) -> None:
        self._outputs: frozenset[str] | None = None if only is None else frozenset({only})
        graph = spec.encoder if self._outputs is None else narrowed(spec.encoder, self._outputs)
        read = {item.name for item in graph.inputs}
        self.padding = tuple(each for each in spec.padding if read & set(each.along))
        read |= {name for each in self.padding for name in each.along}  # the lengths of rows are found in one of these
        self._wanted = frozenset(graph.outputs)
        ends = [frozenset(each.outputs) for each in self.padding]
        self._unpadded = self._wanted.intersection(*ends) if ends else frozenset[str]()
        self.inputs = {item.name: item.dtype == "float32" for item in spec.encoder.inputs if item.name in read}
        self._read = frozenset(self.inputs)
        self.parts = RowParts(graph)
        self.same_lengths = all(_fixed(item.shape) for item in spec.encoder.inputs if item.name in read)
        self.cost: Cost | None = None  # of a row, found at the first run
        self.place_work: float | None = None  # of one position of a row, where padding is skipped

    def skips(self, only: str | None) -> bool:
        """Whether padding changes nothing in `only`, or in any output if that is none of the encoder's."""
        return only in self._unpadded if only in self._wanted else self._unpadded == self._wanted

    def preprocess(self, program: Program) -> Program:
        """What of the preprocessing runs."""
        return program if self._outputs is None else program.narrowed(self._read)

    def encoder(self, program: Any) -> Any:
        """What of the encoder runs."""
        return program if self._outputs is None else program.narrowed(self._outputs)


def _fixed(shape: tuple[Size, ...] | None) -> bool:
    """Whether no row can be padded to the length of another."""
    return shape is not None and all(isinstance(size, int) for size in shape[1:])
