"""Branches and loops spelled out: the nodes that run, by names that say where they stand."""

from __future__ import annotations

from porting.flat_graph.opened import body_of, goes_on, inside, opened
from torch_towers.graph.graph import Graph, Node, TensorSpec

X, P = TensorSpec("x", "float32", ("n",)), TensorSpec("p", "bool", ())


def body(op: str) -> Graph:
    return Graph((X,), (Node("made", op, ("x",)),), {"out": "made"})


BRANCH = Graph(
    (X, P),
    (
        Node("if", "If", ("p", "x"), {"then_branch": body("Abs"), "else_branch": body("Neg")}),
        Node("y", "Tanh", ("if:0",)),
    ),
    {"out": "y"},
)
TEST = Graph((X,), (Node("small", "IsFinite", ("x",)),), {"out": "small"})
LOOP = Graph((X,), (Node("loop", "While", ("x",), {"cond": TEST, "body": body("Square")}),), {"out": "loop:0"})


def by_name(graph: Graph) -> dict[str, Node]:
    return {node.name: node for node in graph.nodes}


def test_the_branch_that_is_taken() -> None:
    for number, op in ((1, "Abs"), (0, "Neg")):
        nodes = by_name(opened(BRANCH, [("if", number)], {}))
        assert "if" not in nodes
        assert (nodes["if/made"].op, nodes["if/made"].inputs) == (op, ("x",))
        assert nodes["y"].inputs[0].partition(":")[0] == "if/made"


def test_rounds_of_a_loop_one_after_another() -> None:
    graph = opened(LOOP, [("loop", 2)], {})
    nodes = by_name(graph)
    first, second = (nodes[f"{inside('loop', i)}made"] for i in range(2))
    assert (first.inputs, second.inputs) == (("x",), (first.name,))
    assert graph.outputs["out"].partition(":")[0] == second.name
    tests = [nodes[graph.outputs[goes_on("loop", i)].partition(":")[0]] for i in range(2)]
    assert [test.inputs for test in tests] == [("x",), (first.name,)]


def test_which_body() -> None:
    branches = (body("Abs"), body("Neg"))
    case = Node("case", "Case", ("i", "x"), {"branches": branches})
    assert [body_of(case, i) for i in (0, 1, 2, -1)] == [branches[0], branches[1], branches[1], branches[1]]
