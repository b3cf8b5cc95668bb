"""The subgraph between fed tensors and outputs: what stays, and what is dropped."""

from __future__ import annotations

from porting.flat_graph.subgraph import Cut, apply
from torch_towers.graph.graph import Graph, Node, TensorSpec

TEXT, X = TensorSpec("text", "string", (None,)), TensorSpec("x", "float32", (None,))
GRAPH = Graph(
    (TEXT, X),
    (
        Node("lower", "StringLower", ("text",), {}),
        Node("parse", "ParseDocuments", ("lower",), {}),  # no op of TensorFlow's
        Node("fits", "GreaterEqual", ("parse:1", "x"), {}),
        Node("check", "Assert", ("fits",), {}),
        Node("outside", "StringLength", ("lower",), {}),
        Node("checked", "Assert", ("outside",), {}),
        Node("sum", "AddV2", ("parse:0", "parse:1"), {}),
        Node("twice", "AddV2", ("sum", "sum"), {}),
    ),
    {"embedding": "twice"},
)
AGE, CITY = TensorSpec("age", "float32", (None,)), TensorSpec("city", "float32", (None,))


def test_no_cut_is_the_graph_itself() -> None:
    assert apply(GRAPH, Cut(), {}) is GRAPH


def test_what_stands_before_the_fed_tensors_goes_and_the_inputs_with_it() -> None:
    cut = apply(GRAPH, Cut({"parse": AGE, "parse:1": CITY}), {})
    assert [spec.name for spec in cut.inputs] == ["x", "age", "city"]  # `x` for the assertion that stays
    assert [(node.name, node.inputs) for node in cut.nodes] == [
        ("fits", ("city", "x")),
        ("check", ("fits",)),
        ("sum", ("age", "city")),
        ("twice", ("sum", "sum")),
    ]
    assert cut.outputs == {"embedding": "twice"}


def test_the_graph_ends_at_what_is_fetched() -> None:
    cut = apply(GRAPH, Cut({"parse": AGE, "parse:1": CITY}, {"sum": "sum"}), {})
    assert [node.name for node in cut.nodes] == ["fits", "check", "sum"]
    assert cut.outputs == {"sum": "sum"}
    fed = apply(GRAPH, Cut({"sum:0": AGE}, {"out": "sum"}), {})
    assert (fed.nodes, fed.outputs) == ((), {"out": "age"})
