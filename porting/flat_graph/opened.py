"""Inlines a branch or the first iterations of a loop into a flat graph, to inspect the values inside.

The taken branch replaces the `If` or `Case`; the unrolled iterations of a loop replace the
`While`. The nodes inside are named `<name>/...` and `<name>/round_<i>/...`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from porting.flat_graph.effects import Functions
from porting.flat_graph.flatten import flatten
from porting.saved_model import Function, FunctionRef
from torch_towers.graph.graph import Graph, Node, node_of

BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
LOOPS = frozenset({"While", "StatelessWhile"})

Opening = tuple[str, int]
"""The name of a branch or loop, and the index of the branch (1 for a true `If`), or the number of unrolled
iterations."""


def opened(graph: Graph, openings: Sequence[Opening], functions: Functions) -> Graph:
    """`graph` with branches and loops inlined in order: a later one may be inside an earlier one.

    For a loop, outputs tell before each iteration whether it runs: `goes_on(name, i)`, a boolean.
    """
    for name, number in openings:
        known = dict(functions)
        node = next(node for node in graph.nodes if node.name == name)
        calls, renamed, added = (_branch if node.op in BRANCHES else _rounds)(node, number, known)
        nodes = [_reading(inner, name, renamed) for inner in graph.nodes if inner is not node]
        outputs = {key: _renamed(ref, name, renamed) for key, ref in graph.outputs.items()}
        graph = flatten(Graph(graph.inputs, (*nodes, *calls), {**outputs, **added}), known)
    return graph


def goes_on(name: str, number: int) -> str:
    """The output that tells whether the loop `name` has an iteration `number`."""
    return f"{name}/goes_on_{number}"


def inside(name: str, number: int | None = None) -> str:
    """The prefix of node names in a branch, or in an iteration of a loop."""
    return f"{name}/" if number is None else f"{name}/round_{number}/"


def body_of(node: Node, number: int) -> FunctionRef | Graph:
    """The body of a loop, or the branch with index `number`."""
    if node.op in LOOPS:
        return node.attrs["body"]
    branches = node.attrs.get("branches") or (node.attrs["else_branch"], node.attrs["then_branch"])
    return branches[number if 0 <= number < len(branches) else -1]


Opened = tuple[list[Node], str, dict[str, str]]  # the calls, the replacement of the node, outputs


def _branch(node: Node, number: int, functions: dict[str, Function]) -> Opened:
    return [_call(node.name, body_of(node, number), node.inputs[1:], functions)], node.name, {}


def _rounds(node: Node, number: int, functions: dict[str, Function]) -> Opened:
    calls: list[Node] = []
    operands = node.inputs
    for i in range(number):
        calls.append(_call(goes_on(node.name, i), node.attrs["cond"], operands, functions))
        calls.append(_call(inside(node.name, i)[:-1], node.attrs["body"], operands, functions))
        operands = tuple(f"{calls[-1].name}:{place}" for place in range(len(node.inputs)))
    return calls, calls[-1].name, {call.name: call.name for call in calls[::2]}


def _call(name: str, body: FunctionRef | Graph, operands: Sequence[str], functions: dict[str, Function]) -> Node:
    if isinstance(body, Graph):  # a TensorFlow 1 loop
        function = Function(f"{name}/body", body.inputs, tuple(body.outputs.items()), body.nodes, ())
        functions[function.name] = function
        body = FunctionRef(function.name, {})
    return Node(name, "PartitionedCall", tuple(operands), {"f": body})


def _reading(node: Node, name: str, renamed: str) -> Node:
    return replace(node, inputs=tuple(_renamed(ref, name, renamed) for ref in node.inputs))


def _renamed(ref: str, name: str, renamed: str) -> str:
    return renamed + ref[len(name) :] if node_of(ref) == name else ref
