"""Side effects: what TensorFlow runs besides the computation of the outputs, and whether the outputs depend on it.

An op with a converter is pure. Any other op may change the variable or table whose handle it takes. If such a change
affects something that the outputs read, the entry cannot be ported; other changes (the seed of a layer that draws
numbers in training, a counter, a moving average) are dropped. Assertions stay, so that the port refuses what TensorFlow
refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from porting.flat_graph.control_flow_v1 import OPS, kind
from porting.registry import CONVERTERS
from porting.saved_model import Function, FunctionRef
from torch_towers.graph.graph import Graph, Node, node_of

ASSERTIONS = frozenset({"Assert", "CheckNumerics"})
FILLERS = frozenset({"LookupTableImport", "LookupTableImportV2", "InitializeTable", "InitializeTableV2",
                     "InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})  # fmt: skip
"""Ops that fill a table. The SavedModel's own initializer fills a static table once, so these have no effect on it."""
_STATIC = frozenset({"HashTable", "HashTableV2", "AnonymousHashTable"})
_PASSES = frozenset({"Identity", "RefIdentity", "Switch", "Merge", "Enter", "Exit", "NextIteration"})

Functions = Mapping[str, Function]
State = tuple[str, str]
"""A variable or table by its key in the SavedModel, or the argument of a function: ("variable", "3"), ("static table",
"words")."""
StateOf = Callable[[str], State | None]
"""The state whose handle a reference is."""


def states_of(nodes: Mapping[str, Node], arguments: Mapping[str, State | None]) -> StateOf:
    """Resolves references into `nodes` to states, given the states of outer arguments."""

    def state_of(ref: str) -> State | None:
        seen: set[str] = set()
        while (name := node_of(ref)) not in seen:
            seen.add(name)
            if name in arguments:
                return arguments[name]
            node = nodes.get(name)
            if node is None:
                return None
            own = own_state(node)
            if own or kind(node) not in _PASSES or not node.inputs:
                return own
            ref = node.inputs[0]
        return None

    return state_of


def own_state(node: Node) -> State | None:
    """The state whose handle `node` creates."""
    static = "static " if node.op in _STATIC else ""
    return next(((static + what, str(node.attrs[what])) for what in ("variable", "table") if what in node.attrs), None)


class Settled(NamedTuple):
    """The names of the nodes with effects that stay, and the dropped nodes."""

    kept: list[str]
    dropped: list[Node]


def settled(
    executed: Mapping[str, Node], outputs: Iterable[str], arguments: Mapping[str, State | None], functions: Functions
) -> Settled:
    """Divides the nodes that the outputs do not need by data into those that stay and those that no output can
    observe."""
    needed = upstream(outputs, executed)
    beside = [node for name, node in executed.items() if name not in needed and not only_computes(node, functions)]
    kept = [node for node in beside if asserts(node, functions)]
    needed |= upstream([node.name for node in kept], executed)
    names = [node.name for node in kept]
    names += _that_change(needed, beside, executed, states_of(executed, arguments), functions)
    return Settled(names, [node for node in beside if node.name not in names])


def that_change(needed: set[str], graph: Graph, functions: Functions) -> list[str]:
    """The nodes of a flat graph, outside `needed`, that may change what the `needed` ones read."""
    nodes = {node.name: node for node in graph.nodes}
    return _that_change(needed, graph.nodes, nodes, states_of(nodes, arguments_of(graph)), functions)


def _that_change(
    needed: set[str], among: Iterable[Node], nodes: Mapping[str, Node], state_of: StateOf, functions: Functions
) -> list[str]:
    read = {own_state(nodes[name]) for name in needed}
    return [
        node.name
        for node in among
        if node.name not in needed
        # only the caller knows what an argument is
        and any(state in read or state[0] == "argument" for state in changed(node, functions, state_of))
    ]


def upstream(refs: Iterable[str], nodes: Mapping[str, Node], fed: Container[str] = ()) -> set[str]:
    """The data dependencies of `refs`, including themselves, up to the tensors in `fed`."""
    found: set[str] = set()
    pending = list(refs)
    while pending:
        ref = pending.pop()
        name = node_of(ref)
        if not ref.startswith("^") and name in nodes and name not in found and normal(ref) not in fed:
            found.add(name)
            pending += nodes[name].inputs
    return found


def normal(ref: str) -> str:
    """The canonical spelling of a reference: "x" for "x:0"."""
    return ref.removesuffix(":0") if ref.count(":") == 1 else ref


def asserts(node: Node, functions: Functions) -> bool:
    """Whether `node` is an assertion, or a branch or loop that contains one."""
    return any(inner.op in ASSERTIONS for inner, _ in _ops(node, functions, _nothing))


def only_computes(node: Node, functions: Functions) -> bool:
    """Whether `node` and all ops of its branches and bodies are pure."""
    return all(_computes(inner) and inner.op not in ASSERTIONS for inner, _ in _ops(node, functions, _nothing))


def changed(node: Node, functions: Functions, state_of: StateOf) -> set[State]:
    """The states that `node`, or an op of its branches and bodies, may change."""
    found: set[State] = set()
    for inner, inner_state_of in _ops(node, functions, state_of):
        found |= _changed(inner, inner_state_of)
    return found


def _changed(node: Node, state_of: StateOf) -> set[State]:
    """The states that a single op may change."""
    states = set[State]() if _computes(node) else {state for ref in node.inputs if (state := state_of(ref)) is not None}
    return {state for state in states if not (node.op in FILLERS and state[0] == "static table")}


def arguments_of(graph: Graph) -> dict[str, State | None]:
    """The states that enter a graph from outside: the resources among its inputs."""
    return {spec.name: ("argument", spec.name) if spec.dtype == "resource" else None for spec in graph.inputs}


def changing(graph: Graph, functions: Functions) -> list[Node]:
    """The ops of a flat graph and its branches and bodies that may change a variable or table."""
    state_of = states_of({node.name: node for node in graph.nodes}, arguments_of(graph))
    inside = (item for node in graph.nodes for item in _ops(node, functions, state_of))
    return [node for node, state_of in inside if _changed(node, state_of)]


def described(dropped: Iterable[Node]) -> list[str]:
    """Describes the dropped nodes, one line per op."""
    names: dict[str, list[str]] = {}
    for node in dropped:
        names.setdefault(node.op, []).append(node.name)
    return [
        f"left out {op} {', '.join(map(repr, found[:2]))}{f' and {len(found) - 2} more' if len(found) > 2 else ''}: "
        + ("a table is filled already" if op in FILLERS else "no output reads what it changes")
        for op, found in names.items()
    ]


def references_of(node: Node) -> list[FunctionRef]:
    """The functions in the attributes of `node`."""
    found: list[FunctionRef] = []
    for value in node.attrs.values():
        found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, FunctionRef)]
    return found


def _nothing(ref: str) -> None:
    return None


def _computes(node: Node) -> bool:
    return node.op in CONVERTERS or kind(node) in OPS


def _ops(node: Node, functions: Functions, state_of: StateOf) -> Iterator[tuple[Node, StateOf]]:
    """`node`; for a branch, loop or call, the ops inside it, each with the resolver of states there."""
    pending, seen = [(node, state_of)], set[Any]()
    while pending:
        node, state_of = pending.pop()
        bodies = list(_bodies(node, functions))
        if not bodies:
            yield node, state_of
        for name, inputs, nodes in bodies:
            operands = [ref for ref in node.inputs if not ref.startswith("^")]
            given = [state_of(ref) for ref in operands[len(operands) - len(inputs) :]]  # a predicate comes first
            if (name, *given) not in seen:
                seen.add((name, *given))
                inner = states_of({inner.name: inner for inner in nodes}, dict(zip(inputs, given, strict=False)))
                pending += [(node, inner) for node in nodes]


def _bodies(node: Node, functions: Functions) -> Iterator[tuple[Any, list[str], tuple[Node, ...]]]:
    """The branches and bodies of a node: identities, argument names, nodes."""
    if node.op in functions:
        yield from _function(functions[node.op])
    elif node.op in CONVERTERS or "f" in node.attrs:
        for reference in references_of(node):
            if reference.name in functions:
                yield from _function(functions[reference.name])
        for value in node.attrs.values():
            if isinstance(value, Graph):
                yield id(value), [spec.name for spec in value.inputs], value.nodes


def _function(function: Function) -> Iterator[tuple[Any, list[str], tuple[Node, ...]]]:
    yield function.name, [spec.name for spec in function.inputs], function.nodes
