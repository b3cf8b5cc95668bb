"""Flattens one entry of a SavedModel to one graph of TF ops: inlines functions, prunes unreachable nodes, sorts
topologically."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from porting.budget import current
from porting.errors import CorruptModelError, PortingError
from porting.flat_graph import control_flow_v1, effects
from porting.saved_model import AttrPlaceholder, Function
from torch_towers.graph.graph import Graph, Node, node_of

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


class Flat(NamedTuple):
    """A flat graph, and the dropped nodes with effects that no output can observe."""

    graph: Graph
    dropped: tuple[Node, ...]


def flatten(
    graph: Graph, functions: Mapping[str, Function], *, controls: Iterable[str] = (), stack: tuple[str, ...] = ()
) -> Graph:
    """`graph` with all calls inlined, pruned to outputs and effects, in topological order.

    `controls` name nodes that always run (a function's control outputs); `stack` the enclosing functions.
    The result has no control inputs. Only effects that the outputs can observe stay: see `porting.flat_graph.effects`.
    Errors: a recursive function, a reference to a missing node, a cycle.
    """
    return flatten_whole(graph, functions, controls=controls, stack=stack).graph


def flatten_whole(
    graph: Graph, functions: Mapping[str, Function], *, controls: Iterable[str] = (), stack: tuple[str, ...] = ()
) -> Flat:
    """`flatten`, also returning the dropped nodes."""
    inliner = _Inliner(graph, functions, stack)
    names = inliner.executed([*graph.outputs.values(), *controls])
    outputs = {name: inliner.resolve(ref) for name, ref in graph.outputs.items()}
    executed = {name: inliner.with_inputs(inliner.nodes[name]) for name in names}
    settled = effects.settled(executed, outputs.values(), effects.arguments_of(graph), functions)
    kept = settled.kept
    if control_flow_v1.is_needed(executed.values()):
        inliner.nodes, outputs, kept = control_flow_v1.functionalize(executed, outputs, kept)
    nodes = _sorted(inliner, [*map(node_of, outputs.values()), *kept])
    return Flat(Graph(graph.inputs, tuple(nodes), outputs), tuple(settled.dropped))


def as_graph(function: Function) -> Graph:
    """The body of a function as a graph, calls not inlined."""
    return Graph(function.inputs, function.nodes, dict(function.outputs))


_COPIES = 4
"""Copies of the name of an inlined node in memory, including all references to it."""


class _Inliner:
    """Replaces calls by function bodies. Inlined names are prefixed with the call's name, as in TensorFlow's own
    inliner.

    A call is inlined lazily, when a needed node depends on it.
    """

    def __init__(self, graph: Graph, functions: Mapping[str, Function], stack: tuple[str, ...]) -> None:
        self.functions = functions
        self.inputs = {spec.name for spec in graph.inputs}
        self.nodes: dict[str, Node] = {}
        self._budget = current()
        self._alias: dict[str, str] = {}  # a function argument -> the operand of the call
        self._waiting: dict[
            str, tuple[Node, str, str]
        ] = {}  # a call that is not needed yet -> itself, its function, the enclosing call
        self._calls: dict[str, tuple[Function, Node]] = {}  # an inlined call -> its function, itself
        self._around: dict[str, tuple[str, str]] = {}  # a call -> the name of its function, the enclosing call
        self._bodies: dict[str, tuple[Node, ...]] = {}  # a function -> its live nodes
        outermost = ""
        for name in stack:
            outermost, around = (
                f"{outermost}/^{name}",
                outermost,
            )  # not node names: each represents an enclosing function
            self._around[outermost] = (name, around)
        self._place(graph.nodes, outermost)

    def _place(self, nodes: Iterable[Node], around: str) -> None:
        for node in nodes:
            name = self._callee(node)
            if name is None:
                self.nodes[node.name] = node
            else:
                self._waiting[node.name] = (node, name, around)

    def _callee(self, node: Node) -> str | None:
        if node.op in self.functions:
            return node.op
        if node.op not in CALLS:
            return None
        name = node.attrs["f"].name
        if name not in self.functions:
            raise CorruptModelError(f"{node.name!r} calls the function {name!r}, which the SavedModel does not hold")
        return name

    def _inline(self, call: Node, name: str, around: str) -> None:
        function, prefix = self.functions[name], f"{call.name}/"
        self._check_recursion(name, around)
        data = [ref for ref in call.inputs if not ref.startswith("^")]
        if len(data) != len(function.inputs):
            raise CorruptModelError(
                f"{call.name!r} passes {len(data)} operands to the function {function.name!r}, which takes {len(function.inputs)}"
            )
        body = self._body(function)
        self._budget.spend("nodes", len(body), call.name)
        count = len(data) + sum(1 + len(node.inputs) for node in body)
        self._budget.spend("fold_bytes", _COPIES * count * len(prefix), call.name)
        for spec, ref in zip(function.inputs, data, strict=True):
            self._alias[prefix + spec.name] = ref
        self._calls[call.name] = (function, call)
        self._around[call.name] = (name, around)
        attrs = {**call.attrs, **(call.attrs["f"].attrs if "f" in call.attrs else {})}
        self._place((_placed(node, prefix, attrs) for node in body), call.name)

    def _check_recursion(self, name: str, around: str) -> None:
        stack = [name]
        while around:
            outer, around = self._around[around]
            stack.append(outer)
            if outer == name:
                cycle = " -> ".join(reversed(stack))
                raise PortingError(f"function {name!r} calls itself ({cycle}): recursion cannot be ported")

    def _body(self, function: Function) -> tuple[Node, ...]:
        """The live nodes of a function: the dependencies of its results and control outputs."""
        if function.name not in self._bodies:
            nodes = {node.name: node for node in function.nodes}
            pending = [*(ref for _, ref in function.outputs), *function.control_outputs]
            needed = set[str]()
            while pending:
                name = node_of(pending.pop().lstrip("^"))
                if name in nodes and name not in needed:
                    needed.add(name)
                    pending += nodes[name].inputs
            self._bodies[function.name] = tuple(node for node in function.nodes if node.name in needed)
        return self._bodies[function.name]

    def _called(self, name: str) -> tuple[Function, Node] | None:
        """The function and node of an inlined call; None if `name` is not a call."""
        if name in self._waiting:
            self._inline(*self._waiting.pop(name))
        return self._calls.get(name)

    def resolve(self, reference: str) -> str:
        """The producer of `reference`: an op's output or an input of the graph."""
        seen: set[str] = set()
        while True:
            name, _, rest = reference.partition(":")
            if name in self.inputs or name in self.nodes:
                return reference
            if reference in seen:
                raise CorruptModelError(f"{reference!r} is its own input: the graph has a cycle")
            seen.add(reference)
            if name in self._alias:
                reference = self._alias[name]
            elif called := self._called(name):
                function, _ = called
                reference = f"{name}/{function.outputs[_output_index(function, rest, name)][1]}"
            else:
                raise CorruptModelError(f"{reference!r} is used, but no node of the graph computes it")

    def with_inputs(self, node: Node) -> Node:
        """`node` with its operands resolved, keeping control inputs that are nodes."""
        inputs = [ref if ref.startswith("^") else self.resolve(ref) for ref in node.inputs]
        return replace(node, inputs=tuple(ref for ref in inputs if not ref.startswith("^") or ref[1:] in self.nodes))

    def executed(self, roots: Iterable[str]) -> list[str]:
        """The nodes that TensorFlow runs for `roots`: all upstream nodes, by data or control, including side effects of
        calls."""
        pending, seen, names = list(roots), set[str](), list[str]()
        while pending:
            name = node_of(pending.pop().lstrip("^"))
            if name in seen or name in self.inputs:
                continue
            seen.add(name)
            if name in self._alias:
                pending.append(self._alias[name])
            elif called := self._called(name):
                function, call = called
                pending += [f"{name}/{ref}" for _, ref in function.outputs]
                pending += [f"{name}/{control}" for control in function.control_outputs]
                pending += [ref for ref in call.inputs if ref.startswith("^")]
            elif name in self.nodes:
                names.append(name)
                pending += self.nodes[name].inputs
            else:
                raise CorruptModelError(f"{name!r} is used, but no node of the graph computes it")
        return names


def _placed(node: Node, prefix: str, attrs: Mapping[str, Any]) -> Node:
    """An inlined node: its name prefixed, its attribute placeholders filled in."""
    filled = {key: _fill(value, attrs, node) for key, value in node.attrs.items()}
    inputs = tuple(f"^{prefix}{ref[1:]}" if ref.startswith("^") else prefix + ref for ref in node.inputs)
    return Node(prefix + node.name, node.op, inputs, filled)


def _fill(value: Any, attrs: Mapping[str, Any], node: Node) -> Any:
    if not isinstance(value, AttrPlaceholder):
        return value
    if value.name not in attrs:
        raise CorruptModelError(f"{node.name!r}: the attribute ${value.name} is not given by the call")
    return attrs[value.name]


def _output_index(function: Function, rest: str, call: str) -> int:
    """The position of a call's output: "2" and "output:2" (a call op) are positions; "identity:0" (a call by function
    name) is a name."""
    argument, _, index = rest.rpartition(":")
    names = [name for name, _ in function.outputs]
    position = names.index(argument) if argument in names and argument != "output" else int(index or 0)
    if position >= len(names):
        raise CorruptModelError(
            f"output {position} of the call {call!r} is used, but {function.name!r} has {len(names)}"
        )
    return position


def _sorted(inliner: _Inliner, roots: Iterable[str]) -> list[Node]:
    """The data dependencies of `roots` in topological order. Control inputs are dropped, calls resolved."""
    ordered: list[Node] = []
    state: dict[str, int] = {}  # 1: operands being visited, 2: done
    pending = list(roots)
    resolved: dict[str, Node] = {}
    while pending:
        name = pending[-1]
        if name in inliner.inputs or state.get(name) == 2:
            pending.pop()
        elif state.get(name) == 1:
            pending.pop()
            state[name] = 2
            ordered.append(resolved[name])
        else:
            node = inliner.nodes[name]
            inputs = tuple(inliner.resolve(ref) for ref in node.inputs if not ref.startswith("^"))
            state[name] = 1
            resolved[name] = replace(node, inputs=inputs)
            for ref in inputs:
                operand = node_of(ref)
                if state.get(operand) == 1:
                    raise CorruptModelError(f"the graph has a cycle through {name!r} and {operand!r}")
                pending.append(operand)
    return ordered
