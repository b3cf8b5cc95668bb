from __future__ import annotations

import pytest

from porting.errors import CorruptModelError, PortingError
from porting.flat_graph.flatten import flatten
from porting.saved_model import AttrPlaceholder, Function, FunctionRef
from torch_towers.graph.graph import Graph, Node, TensorSpec

X = TensorSpec("x", "float32", (None,))


def graph(*nodes: Node, **outputs: str) -> Graph:
    return Graph((X,), nodes, outputs)


def function(name: str, nodes: list[Node], result: str, controls: tuple[str, ...] = ()) -> Function:
    return Function(name, (X,), (("y", result),), tuple(nodes), controls)


def call(name: str, callee: str, *inputs: str, **attrs: object) -> Node:
    return Node(name, "PartitionedCall", inputs, {"f": FunctionRef(callee, {}), **attrs})


def library(*functions: Function) -> dict[str, Function]:
    return {item.name: item for item in functions}


def test_calls_are_replaced_by_bodies() -> None:
    inner = function("inner", [Node("neg", "Neg", ("x",), {"T": AttrPlaceholder("T")})], "neg:y:0")
    outer = function("outer", [Node("again", "inner", ("x",), {"T": AttrPlaceholder("T")})], "again:y:0")
    flat = flatten(graph(call("call", "outer", "x", T="float32"), y="call"), library(inner, outer))
    assert flat.nodes == (Node("call/again/neg", "Neg", ("x",), {"T": "float32"}),)
    assert flat.outputs == {"y": "call/again/neg:y:0"}


def test_what_no_output_needs_is_left_out() -> None:
    flat = flatten(graph(Node("a", "Neg", ("x",)), Node("b", "Abs", ("x",)), y="a"), {})
    assert [node.name for node in flat.nodes] == ["a"]


def test_an_assertion_of_a_called_function_stays_and_its_operands_too() -> None:
    body = function(
        "f", [Node("less", "Less", ("x",)), Node("assert", "Assert", ("less:z:0",)), Node("id", "Identity", ("x",))],
        "id:output:0", ("assert",),
    )  # fmt: skip
    flat = flatten(graph(call("call", "f", "x"), y="call"), library(body))
    assert {node.op for node in flat.nodes} == {"Less", "Assert", "Identity"}


def test_an_assertion_behind_control_inputs_stays_and_pure_ops_behind_them_go() -> None:
    nodes = (
        Node("check", "Assert", ("x",)),
        Node("pure", "Abs", ("x",)),
        Node("group", "NoOp", ("^check", "^pure")),
        Node("y", "Identity", ("x", "^group")),
    )
    flat = flatten(graph(*nodes, y="y"), {})
    assert {node.name for node in flat.nodes} == {"check", "y"}
    assert all(not ref.startswith("^") for node in flat.nodes for ref in node.inputs)


def test_a_branch_that_only_asserts_stays() -> None:
    branch = function(
        "refuse", [Node("assert", "Assert", ("x",)), Node("id", "Identity", ("x",))], "id:output:0", ("assert",)
    )
    node = Node(
        "if", "If", ("x", "x"), {"then_branch": FunctionRef("refuse", {}), "else_branch": FunctionRef("refuse", {})}
    )
    flat = flatten(graph(node, Node("y", "Identity", ("x", "^if")), y="y"), library(branch))
    assert {item.name for item in flat.nodes} == {"if", "y"}


def test_a_long_chain() -> None:
    nodes = [Node("n0", "Neg", ("x",)), *(Node(f"n{i}", "Neg", (f"n{i - 1}",)) for i in range(1, 20_000))]
    flat = flatten(graph(*reversed(nodes), y="n19999"), {})
    assert [node.name for node in flat.nodes] == [f"n{i}" for i in range(20_000)]


def test_deeply_nested_calls() -> None:
    depth = 3000
    functions = [function(f"f{i}", [Node("c", f"f{i + 1}", ("x",))], "c:y:0") for i in range(depth)]
    last = function(f"f{depth}", [Node("neg", "Neg", ("x",))], "neg:y:0")
    flat = flatten(graph(call("call", "f0", "x"), y="call"), library(*functions, last))
    assert len(flat.nodes) == 1


@pytest.mark.parametrize("cycle", [("f",), ("f", "g"), ("f", "g", "h")])
def test_recursion_is_an_error_that_shows_the_cycle(cycle: tuple[str, ...]) -> None:
    functions = [
        function(name, [Node("again", cycle[(i + 1) % len(cycle)], ("x",))], "again:y:0")
        for i, name in enumerate(cycle)
    ]
    with pytest.raises(PortingError, match=" -> ".join((*cycle, cycle[0]))):
        flatten(graph(call("call", "f", "x"), y="call"), library(*functions))


def test_a_cycle_is_an_error() -> None:
    with pytest.raises(CorruptModelError, match="cycle"):
        flatten(graph(Node("a", "Neg", ("b",)), Node("b", "Neg", ("a",)), y="a"), {})


def test_a_missing_node_is_an_error() -> None:
    with pytest.raises(CorruptModelError, match="'nowhere' is used, but no node"):
        flatten(graph(Node("a", "Neg", ("nowhere",)), y="a"), {})


def test_a_call_with_too_many_operands_is_an_error() -> None:
    inner = function("inner", [Node("neg", "Neg", ("x",))], "neg:y:0")
    with pytest.raises(CorruptModelError, match="passes 2 operands to the function 'inner', which takes 1"):
        flatten(graph(call("call", "inner", "x", "x"), y="call"), library(inner))


def test_an_attribute_that_the_call_does_not_give_is_an_error() -> None:
    inner = function("inner", [Node("neg", "Neg", ("x",), {"T": AttrPlaceholder("T")})], "neg:y:0")
    with pytest.raises(CorruptModelError, match=r"the attribute \$T is not given"):
        flatten(graph(call("call", "inner", "x"), y="call"), library(inner))
