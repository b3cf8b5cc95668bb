"""Dropout that was left on: an export with training=True draws at each call which values to keep.

    scale * x where u >= rate, else 0        with u drawn from [0, 1) and scale = 1 / (1 - rate)

is `x` in inference. TensorFlow has three forms of it: `where` since 2.13, a product with the mask before, and in TF1
`x / keep * floor(u + keep)`. Source: dropout, tensorflow/python/ops/nn_ops.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from porting.flat_graph.effects import references_of
from porting.flat_graph.flatten import as_graph
from porting.saved_model import Function
from torch_towers.graph.graph import Graph, Node, node_of

_DRAWS = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})
_PASSES = frozenset({"Identity", "Cast"})
_TOLERANCE = 1e-2  # half-precision scales are off by 1e-3; other formulas are not close


@dataclass(frozen=True, slots=True)
class Dropout:
    """A dropout: its last node, its input, and its rate."""

    node: str
    kept: str
    rate: float


def find(graph: Graph) -> list[Dropout]:
    """Every dropout with a constant rate in a flat TF graph."""
    reader = _Reader({node.name: node for node in graph.nodes})
    return [found for node in graph.nodes if (found := reader.dropout(node)) is not None]


def off(graph: Graph) -> Graph:
    """`graph` as exported with training=False. Nodes that only the draws need remain."""
    kept = {item.node: item.kept for item in find(graph)}

    def without(ref: str) -> str:
        while node_of(ref) in kept:  # never a control input, which starts with "^"
            ref = kept[node_of(ref)]
        return ref

    nodes = tuple(replace(node, inputs=tuple(map(without, node.inputs))) for node in graph.nodes)
    return replace(graph, nodes=nodes, outputs={name: without(ref) for name, ref in graph.outputs.items()})


def bodies(graph: Graph, functions: Mapping[str, Function]) -> dict[str, list[Dropout]]:
    """The dropouts inside the branches and loops of `graph`, by function."""
    found: dict[str, list[Dropout]] = {}
    pending = [name for node in graph.nodes for name in _called(node, functions)]
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = find(as_graph(functions[name]))
            pending += [inner for node in functions[name].nodes for inner in _called(node, functions)]
    return {name: items for name, items in found.items() if items}


class Off(Mapping[str, Function]):
    """The functions of a SavedModel with dropout removed."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self._functions = functions
        self._made: dict[str, Function] = {}

    def __getitem__(self, name: str) -> Function:
        if name not in self._made:
            function = self._functions[name]
            graph = off(as_graph(function))
            outputs = tuple((output, graph.outputs[output]) for output, _ in function.outputs)
            self._made[name] = replace(function, nodes=graph.nodes, outputs=outputs)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)


def _called(node: Node, functions: Mapping[str, Function]) -> list[str]:
    names = [node.op, *(reference.name for reference in references_of(node))]
    return [name for name in names if name in functions]


def described(found: Sequence[Dropout]) -> str:
    """Describes the first of them, and their number."""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0].node!r} (rate {found[0].rate:g}){more}"


class _Reader:
    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes

    def dropout(self, node: Node) -> Dropout | None:
        """The dropout whose last op is `node`, if any."""
        for mask, scaled in self._masked(node):
            keep = self._keep(mask)
            if keep is not None and 0 < keep < 1:
                kept = self._unscaled(scaled, keep)
                if kept is not None:
                    return Dropout(node.name, kept, round(1 - keep, 6))
        return None

    def _masked(self, node: Node) -> Iterator[tuple[str, str]]:
        """Candidates of (mask, masked value)."""
        if node.op == "SelectV2" and self._number(node.inputs[2]) == 0:
            yield node.inputs[0], node.inputs[1]
        if node.op == "Mul":
            yield node.inputs[0], node.inputs[1]
            yield node.inputs[1], node.inputs[0]

    def _keep(self, mask: str) -> float | None:
        """The keep probability of a mask: of `u >= rate`, or of `floor(u + keep)`."""
        node = self._producer(mask)
        if node is None:
            return None
        if node.op == "GreaterEqual" and self._is_draw(node.inputs[0]):
            rate = self._number(node.inputs[1])
            return None if rate is None else 1 - rate
        if (
            node.op == "Floor"
            and (total := self._producer(node.inputs[0])) is not None
            and total.op in ("Add", "AddV2")
        ):
            for keep, draw in (total.inputs, total.inputs[::-1]):
                if self._is_draw(draw):
                    return self._number(keep)
        return None

    def _unscaled(self, ref: str, keep: float) -> str | None:
        """`x`, given `x * (1 / keep)` or `x / keep`."""
        node = self._producer(ref)
        if node is None:
            return None
        if node.op == "RealDiv" and self._is_near(node.inputs[1], keep):
            return node.inputs[0]
        if node.op == "Mul":
            for x, scale in (node.inputs, node.inputs[::-1]):
                if self._is_near(scale, 1 / keep):
                    return x
        return None

    def _is_near(self, ref: str, wanted: float) -> bool:
        number = self._number(ref)
        return number is not None and abs(number - wanted) <= _TOLERANCE * wanted

    def _is_draw(self, ref: str) -> bool:
        """Whether it is uniform in [0, 1): a draw, or one scaled to these bounds."""
        node = self._producer(ref)
        if node is not None and node.op in ("Add", "AddV2"):
            drawn, low = node.inputs
            node = self._producer(drawn) if self._number(low) == 0 else None
        if node is not None and node.op == "Mul":
            drawn, width = node.inputs
            node = self._producer(drawn) if self._number(width) == 1 else None
        return node is not None and node.op in _DRAWS

    def _number(self, ref: str) -> float | None:
        """A constant number, or the difference of two."""
        node = self._producer(ref)
        if node is not None and node.op == "Sub":
            first, second = map(self._number, node.inputs)
            return None if first is None or second is None else first - second
        value = None if node is None or node.op != "Const" else node.attrs["value"]
        if value is None or str(value.dtype) == "object":
            return None
        array = np.asarray(value.float() if hasattr(value, "float") else value)
        return float(array) if array.ndim == 0 else None

    def _producer(self, ref: str) -> Node | None:
        node = self.nodes.get(node_of(ref))
        while node is not None and node.op in _PASSES:
            node = self.nodes.get(node_of(node.inputs[0]))
        return node
