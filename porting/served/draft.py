"""A flat TF graph under rewriting: nodes behind identities, their users, and the values of constants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from torch_towers.graph.graph import Graph, Node, node_of

Evaluate = Callable[[Graph], torch.Tensor | None]
IDENTITIES = frozenset({"Identity", "StopGradient", "PreventGradient", "Snapshot"})
"""Ops that return their operand: TensorFlow removes them before it matches patterns."""
_STATEFUL = ("ReadVariable", "Resource", "Lookup", "Random", "Stateful", "Assert", "While", "If", "Case")
_COMMUTATIVE = frozenset({"Add", "AddV2", "Mul", "Maximum", "Minimum", "AddN"})
_LARGE = 1 << 10  # elements: larger constants are not compared
_CLOSURE = 64  # maximum nodes of a constant expression: larger ones are never an operand of arithmetic


class _Folded(NamedTuple):
    """The value of a constant expression, None if it is not constant, and the nodes that compute it."""

    value: torch.Tensor | None
    nodes: Container[str] = ()


class Draft:
    """A graph whose nodes are replaced in place. Results keep their names, so readers need no change."""

    def __init__(self, graph: Graph, evaluate: Evaluate, captured: Container[str] = ()) -> None:
        self._graph = graph
        self._evaluate = evaluate
        self._captured = captured
        self.nodes = {node.name: node for node in graph.nodes}
        self._values: dict[str, _Folded] = {}
        self._users: Counter[str] | None = None
        self._twin = self._twins()

    def graph(self) -> Graph:
        """The current graph in topological order, including unused nodes."""
        return replace(self._graph, nodes=_ordered(self.nodes))

    # -- reading ----------------------------------------------------------------------------------------------------------

    def source(self, ref: str) -> str:
        """The producer of `ref`, looking through identities."""
        while (node := self.nodes.get(node_of(ref))) is not None and node.op in IDENTITIES:
            ref = node.inputs[0]
        return ref

    def node(self, ref: str, *ops: str) -> Node | None:
        """The node whose first result is `ref`, if its op is one of `ops`."""
        source = self.source(ref)
        node = self.nodes.get(node_of(source))
        return node if node is not None and node.op in ops and _is_first(source) else None

    def users(self, name: str) -> int:
        """The number of readers of a node's results (operands and outputs), with equal nodes merged as in
        TensorFlow."""
        if self._users is None:
            readers = (
                node for node in self.nodes.values() if node.op not in IDENTITIES and self._one(node.name) == node.name
            )
            refs = [ref for node in readers for ref in node.inputs] + list(self._graph.outputs.values())
            self._users = Counter(self._one(node_of(self.source(ref))) for ref in refs)
        return self._users[self._one(name)]

    def _one(self, name: str) -> str:
        return self._twin.get(name, name)

    def _twins(self) -> dict[str, str]:
        """Maps each node to an earlier equal one."""
        twins: dict[str, str] = {}
        seen: dict[Any, str] = {}
        for node in self.nodes.values():
            if node.op in IDENTITIES or not (node.inputs or node.op == "Const") or node.op.startswith(_STATEFUL):
                continue
            operands = [
                (twins.get(node_of(ref), node_of(ref)), ref.partition(":")[2]) for ref in map(self.source, node.inputs)
            ]
            operands = sorted(operands) if node.op in _COMMUTATIVE else operands
            key = (
                node.op,
                tuple(operands),
                tuple(sorted((name, _hashable(value)) for name, value in node.attrs.items())),
            )
            if seen.setdefault(key, node.name) != node.name:
                twins[node.name] = seen[key]
        return twins

    def value(self, ref: str) -> torch.Tensor | None:
        """The value of a constant, as TensorFlow's constant folding sees it; None if it is not constant."""
        if ref not in self._values:
            self._values[ref] = self._constant(ref)
        return self._values[ref].value

    def scalar(self, ref: str) -> float | None:
        """The value of a scalar constant, which does not change the other operand's shape."""
        value = self.value(ref)
        return None if value is None or value.ndim or value.is_complex() else float(value.item())

    def dtype(self, name: str) -> str:
        """The dtype of an arithmetic node."""
        return str(self.nodes[name].attrs.get("T", ""))

    def shape(self, ref: str) -> tuple[int | None, ...] | None:
        """The shape in the SavedModel of a variable that is read, or of a node's first result; None if it is not
        stated."""
        node = self.nodes.get(node_of(self.source(ref)))
        shapes = node.attrs.get("_output_shapes") if node is not None else None
        if shapes:
            return shapes[0]
        if node is not None and node.op == "ReadVariableOp":
            handle = self.nodes.get(node_of(self.source(node.inputs[0])))
            return handle.attrs.get("shape") if handle is not None else None
        return None

    def _constant(self, ref: str) -> _Folded:
        needed: dict[str, Node] = {}
        pending = [node_of(ref)]
        while pending:
            node = self.nodes.get(pending.pop())
            if node is None or (not node.inputs and (node.op != "Const" or node.name in self._captured)):
                return _Folded(None)
            if node.name not in needed:
                needed[node.name] = node
                pending += map(node_of, node.inputs)
            if len(needed) > _CLOSURE:
                return _Folded(None)
        return _Folded(self._evaluate(Graph((), _ordered(needed), {"value": ref})), needed.keys())

    # -- writing ----------------------------------------------------------------------------------------------------------

    def become(self, name: str, op: str, *inputs: str, **attrs: Any) -> bool:
        """Replaces the node `name` by `op` of `inputs`. Returns True: something was rewritten."""
        kept = {"T": self.nodes[name].attrs["T"]} if "T" in self.nodes[name].attrs else {}
        self.nodes[name] = Node(name, op, inputs, {**kept, **attrs})
        self._users = None
        self._values = {
            ref: folded for ref, folded in self._values.items() if folded.value is not None and name not in folded.nodes
        }
        return True

    def mark(self, name: str, **attrs: Any) -> None:
        """Adds attributes to a node."""
        node = self.nodes[name]
        self.nodes[name] = replace(node, attrs={**node.attrs, **attrs})

    def constant(self, beside: str, role: str, value: torch.Tensor) -> str:
        """Adds a constant for the node `beside`; returns its name."""
        held = value if value.dtype is torch.bfloat16 else value.numpy()
        return self.insert(beside, role, "Const", (), {"value": held, "dtype": self.dtype(beside)})

    def insert(self, before: str, role: str, op: str, inputs: tuple[str, ...], attrs: Mapping[str, Any]) -> str:
        """Adds a node before the node `before`, named after it; returns its name."""
        name = f"{before}/{role}"
        while name in self.nodes:
            name += "_"
        ordered: dict[str, Node] = {}
        for key, node in self.nodes.items():
            if key == before:
                ordered[name] = Node(name, op, inputs, dict(attrs))
            ordered[key] = node
        self.nodes = ordered
        self._users = None
        return name


def _ordered(nodes: dict[str, Node]) -> tuple[Node, ...]:
    """The nodes in a stable topological order."""
    placed: dict[str, Node] = {}
    pending = list(reversed(nodes))
    while pending:
        node = nodes[pending[-1]]
        missing = [name for name in map(node_of, node.inputs) if name in nodes and name not in placed]
        if missing:
            pending += missing
        else:
            placed.setdefault(pending.pop(), node)
    return tuple(placed.values())


def _hashable(value: Any) -> str:
    """An attribute as text, equal for equal ones."""
    if not isinstance(value, (np.ndarray, torch.Tensor)):
        return repr(value)
    return f"{value.dtype}{tuple(value.shape)}{value.tolist()}" if math.prod(value.shape) <= _LARGE else str(id(value))


def _is_first(ref: str) -> bool:
    """Whether a reference is the first result of its node: `x`, `x:0`, and in a function's body `x:z:0`."""
    return ref.partition(":")[2].rpartition(":")[2] in ("", "0")
