"""A graph without what only its other outputs need."""

from __future__ import annotations

from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.graph.narrow import narrowed, upstream

GRAPH = Graph(
    tuple(TensorSpec(name, "float32", (None,)) for name in ("x", "y", "z")),
    (
        Node("pair", "split_sizes", ("x",), {"sizes": (1, 1), "axis": 0}), Node("sum", "add", ("pair:1", "y")),
        Node("stack", "stack", (("sum", "x"),), {"axis": 0}), Node("limit", "greater", ("z", 0.0)),
        Node("check", "check", ("limit", "z")),
    ),
    {"first": "pair", "sum": "sum", "stack": "stack"},
)  # fmt: skip


def names(graph: Graph) -> tuple[list[str], list[str], list[str]]:
    return [spec.name for spec in graph.inputs], [node.name for node in graph.nodes], list(graph.outputs)


def test_what_an_output_needs_and_the_checks_stay() -> None:
    assert names(narrowed(GRAPH, {"first"})) == (["x", "z"], ["pair", "limit", "check"], ["first"])
    assert names(narrowed(GRAPH, {"sum"})) == (["x", "y", "z"], ["pair", "sum", "limit", "check"], ["sum"])


def test_all_outputs_need_all() -> None:
    assert names(narrowed(GRAPH, set(GRAPH.outputs))) == names(GRAPH)


def test_upstream() -> None:
    assert upstream(GRAPH, ["sum"]) == {"sum", "pair", "x", "y"}
