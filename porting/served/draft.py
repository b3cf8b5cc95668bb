"""Draft: a flat TF graph while it is rewritten; what its nodes are behind identities, who uses them, and which are constants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from torch_towers.graph.graph import Graph, Node, node_of

Evaluate = Callable[[Graph], torch.Tensor | None]
IDENTITIES = frozenset({"Identity", "StopGradient", "PreventGradient", "Snapshot"})
"""Ops that give what they take: TensorFlow removes them before it looks for anything."""
_STATEFUL = ("ReadVariable", "Resource", "Lookup", "Random", "Stateful", "Assert", "While", "If", "Case")
_COMMUTATIVE = frozenset({"Add", "AddV2", "Mul", "Maximum", "Minimum", "AddN"})
_LARGE = 1 << 10  # elements: constants larger than this are not compared
_CLOSURE = 64  # nodes behind one constant: more are never an operand of arithmetic


class Draft:
    """A graph of which single nodes are replaced. Results keep their names: what reads a node reads what replaced it."""

    def __init__(self, graph: Graph, evaluate: Evaluate, captured: Container[str] = ()) -> None:
        self._graph = graph
        self._evaluate = evaluate
        self._captured = captured
        self.nodes = {node.name: node for node in graph.nodes}
        self._values: dict[str, torch.Tensor | None] = {}
        self._users: Counter[str] | None = None
        self._twin = self._twins()

    def graph(self) -> Graph:
        """The graph as it now is, each node after its operands; nodes that nothing uses any more are still in it."""
        return replace(self._graph, nodes=_ordered(self.nodes))

    # -- reading ----------------------------------------------------------------------------------------------------------

    def source(self, ref: str) -> str:
        """Where the value of `ref` is computed: identities are looked through."""
        while (node := self.nodes.get(node_of(ref))) is not None and node.op in IDENTITIES:
            ref = node.inputs[0]
        return ref

    def node(self, ref: str, *ops: str) -> Node | None:
        """The node whose first result `ref` is, where it is one of `ops`."""
        source = self.source(ref)
        node = self.nodes.get(node_of(source))
        return node if node is not None and node.op in ops and _is_first(source) else None

    def users(self, name: str) -> int:
        """How many operands and outputs read the results of a node, equal nodes counted as the one that TensorFlow makes of them."""
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
        """Each node that computes what an earlier one does, with that one."""
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
        """The numbers of a constant as TensorFlow's constant folding knows it; None where it is none."""
        if ref not in self._values:
            self._values[ref] = self._constant(ref)
        return self._values[ref]

    def scalar(self, ref: str) -> float | None:
        """The number that a constant of rank 0 is: next to it, the other operand keeps its shape."""
        value = self.value(ref)
        return None if value is None or value.ndim or value.is_complex() else float(value.item())

    def dtype(self, name: str) -> str:
        """The dtype of a node of arithmetic."""
        return str(self.nodes[name].attrs.get("T", ""))

    def shape(self, ref: str) -> tuple[int | None, ...] | None:
        """The shape that the SavedModel says of a variable that is read, or of what a node gives first; None where it says nothing."""
        node = self.nodes.get(node_of(self.source(ref)))
        shapes = node.attrs.get("_output_shapes") if node is not None else None
        if shapes:
            return shapes[0]
        if node is not None and node.op == "ReadVariableOp":
            handle = self.nodes.get(node_of(self.source(node.inputs[0])))
            return handle.attrs.get("shape") if handle is not None else None
        return None

    def _constant(self, ref: str) -> torch.Tensor | None:
        needed: dict[str, Node] = {}
        pending = [node_of(ref)]
        while pending:
            node = self.nodes.get(pending.pop())
            if node is None or (not node.inputs and (node.op != "Const" or node.name in self._captured)):
                return None
            if node.name not in needed:
                needed[node.name] = node
                pending += map(node_of, node.inputs)
            if len(needed) > _CLOSURE:
                return None
        return self._evaluate(Graph((), _ordered(needed), {"value": ref}))

    # -- writing ----------------------------------------------------------------------------------------------------------

    def become(self, name: str, op: str, *inputs: str, **attrs: Any) -> bool:
        """The node `name` computes `op` of `inputs` from now on. Gives True: something was rewritten."""
        kept = {"T": self.nodes[name].attrs["T"]} if "T" in self.nodes[name].attrs else {}
        self.nodes[name] = Node(name, op, inputs, {**kept, **attrs})
        self._users = None
        self._values.clear()
        return True

    def mark(self, name: str, **attrs: Any) -> None:
        """Adds attributes to a node."""
        node = self.nodes[name]
        self.nodes[name] = replace(node, attrs={**node.attrs, **attrs})

    def constant(self, beside: str, role: str, value: torch.Tensor) -> str:
        """A new constant for the node `beside`; gives its name."""
        held = value if value.dtype is torch.bfloat16 else value.numpy()
        return self.insert(beside, role, "Const", (), {"value": held, "dtype": self.dtype(beside)})

    def insert(self, before: str, role: str, op: str, inputs: tuple[str, ...], attrs: Mapping[str, Any]) -> str:
        """A new node that stands before the node `before`, named after it; gives its name."""
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
    """The nodes, each after its operands, else in the order that they have."""
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
    """An attribute as a text that equal ones share."""
    if not isinstance(value, (np.ndarray, torch.Tensor)):
        return repr(value)
    return f"{value.dtype}{tuple(value.shape)}{value.tolist()}" if math.prod(value.shape) <= _LARGE else str(id(value))


def _is_first(ref: str) -> bool:
    """Whether a reference is to the first result of its node: `x`, `x:0`, and in a function's body `x:z:0`."""
    return ref.partition(":")[2].rpartition(":")[2] in ("", "0")
