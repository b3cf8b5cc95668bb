"""Finds the node at which a port differs from TensorFlow's optimized graph although each op alone is equal.

TensorFlow's optimizer and oneDNN change formulas, not ops. So both sides run their served graph with one extra output,
for node after node: bisection finds a node that differs while its operands do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from porting.conversion.convert import Context, convert
from porting.errors import PortingError
from porting.flat_graph import dropout
from porting.parity.divergence import described, difference
from porting.parity.oracle import Oracle
from porting.tower import PortedTower
from torch_towers.errors import TorchTowersError
from torch_towers.formats.npz import to_numpy
from torch_towers.graph.graph import Graph, Node, node_of
from torch_towers.inputs.reader import read_column
from torch_towers.program.program import Program

ASKED = 48  # maximum nodes to query: TensorFlow optimizes a new graph for each
_HELD = frozenset({"Const", "VarHandleOp", "ReadVariableOp", "Placeholder", "HashTableV2", "NoOp"})

Arrays = Mapping[str, np.ndarray[Any, Any]]


def first_served_difference(ported: PortedTower, oracle: Oracle, batch: Arrays) -> str:
    """A sentence with the node, both values, and what to do; "" if nothing is found on this batch."""
    search = _Search(ported, oracle, batch)
    roots = [*map(node_of, ported.tf_graph.outputs.values()), *map(node_of, ported.ids.values())]
    for root in dict.fromkeys(roots):
        if search.differs(root):
            return search.found(root)
    return ""


class _Search:
    """Queries both sides about nodes, each once."""

    def __init__(self, ported: PortedTower, oracle: Oracle, batch: Arrays) -> None:
        self._ported, self._oracle, self._batch = ported, oracle, batch
        self._nodes = {node.name: node for node in ported.tf_graph.nodes}
        self._values: dict[str, tuple[Any, Any] | None] = {}

    def found(self, root: str) -> str:
        first = self._nodes[self._first(root, self.differs)]
        said = f"{described(first)}: {self.differs(first.name)}"
        cause = next((name for name in self._operands(first) if self._other_bits(name)), None)
        if cause is not None:  # a step amplifies the last bits of a float
            origin = self._nodes[self._first(cause, self._other_bits)]
            said = f"{described(origin)}: {self._other_bits(origin.name)}; {described(first)} makes more of it: {self.differs(first.name)}"
        return f"in the graph as TensorFlow serves it, the first node that differs is {said}{self._advice()}"

    def differs(self, name: str) -> str:
        """Describes a difference beyond rounding; "" if there is none, or the values are unknown."""
        values = self._ask(name)
        return "" if values is None else difference(*values, self._batch)

    def _other_bits(self, name: str) -> str:
        values = self._ask(name)
        if values is None or values[1].dtype.kind not in "fc":
            return ""
        return difference(*values, self._batch, 0.0)

    def _first(self, root: str, differs: Callable[[str], str]) -> str:
        """Among `root`, which differs, and its dependencies: a node that differs while its operands do not."""
        while True:
            before = self._before(root)
            low, high = -1, len(before) - 1  # the node at `high` differs
            while high - low > 1 and len(self._values) < ASKED:
                middle = (low + high) // 2
                low, high = (low, middle) if differs(before[middle]) else (middle, high)
            operands = [name for name in self._operands(self._nodes[before[high]]) if differs(name)]
            if not operands or len(self._values) >= ASKED:
                return before[high]
            root = operands[0]

    def _operands(self, node: Node) -> list[str]:
        return [name for name in dict.fromkeys(map(node_of, node.inputs)) if self._is_computed(name)]

    def _before(self, root: str) -> list[str]:
        """`root` and its dependencies in topological order."""
        needed, pending = set[str](), [root]
        while pending:
            name = pending.pop()
            if name in self._nodes and name not in needed:
                needed.add(name)
                pending += map(node_of, self._nodes[name].inputs)
        return [name for name in self._nodes if name in needed and self._is_computed(name)]

    def _is_computed(self, name: str) -> bool:
        node = self._nodes.get(name)
        return node is not None and node.op not in _HELD and not {"variable", "table"} & node.attrs.keys()

    def _ask(self, name: str) -> tuple[Any, Any] | None:
        """The port's value and TensorFlow's; None if one side has none."""
        if name not in self._values:
            ours = self._ours(name)
            theirs = None if ours is None else self._theirs(name)
            self._values[name] = None if theirs is None else (ours, theirs)
        return self._values[name]

    def _ours(self, name: str) -> Any:
        """The port's value in the graph as ported, op by op."""
        ported = self._ported
        context = Context(ported.model, ported.served, ported.model.captured(ported.entry))
        if ported.cut.without_dropout:
            context.functions = dropout.Off(ported.model.functions)
        graph = replace(ported.tf_graph, outputs={**ported.tf_graph.outputs, _LOOKED_AT: name})
        try:
            converted, _ = convert(graph, context)
            with torch.inference_mode():
                program = Program(converted, context.store)
                given = {
                    s.name: read_column(self._batch[s.name], s)
                    for s in ported.spec.inputs
                    if s.name in _names(converted)
                }
                return to_numpy(program.run(**given)[_LOOKED_AT])
        except (TorchTowersError, TypeError, ValueError, AttributeError):
            return None  # a list, or a handle

    def _theirs(self, name: str) -> Any:
        """TensorFlow's value in the served graph."""
        ported = self._ported
        fetches = {**ported.tf_graph.outputs, _LOOKED_AT: name}
        where = (ported.model.path, ported.model.tags, ported.entry)
        try:
            (found,) = self._oracle.run_cut(*where, replace(ported.cut, fetches=fetches), [self._batch])
        except PortingError:
            return None
        return None if isinstance(found, str) else found[_LOOKED_AT]

    def _advice(self) -> str:
        served = self._ported.served
        off = [name for name, on in (("--optimizer", served.optimizer), ("--onednn", served.onednn)) if not on]
        return f"; the port was made with {' and '.join(f'{name} off' for name in off)}: leave that out" if off else ""


_LOOKED_AT = "(looked at)"


def _names(graph: Graph) -> set[str]:
    return {spec.name for spec in graph.inputs}
