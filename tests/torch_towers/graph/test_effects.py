"""Which of our nodes are live without a reader."""

from __future__ import annotations

from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import Graph, Node, TensorSpec

X = TensorSpec("x", "float32", (None,))


def branch(*nodes: Node) -> Node:
    plain = Graph((X,), (), {"out": "x"})
    return Node("branch", "cond", (True, "x"), {"then_branch": Graph((X,), nodes, {"out": "x"}), "else_branch": plain})


def test_checks_and_what_holds_one_have_an_effect() -> None:
    check = Node("check", "check", ("x",), {})
    assert has_effect(check)
    assert has_effect(branch(check))
    assert has_effect(branch(branch(check)))


def test_what_only_computes_has_none() -> None:
    assert not has_effect(Node("neg", "neg", ("x",), {}))
    assert not has_effect(branch(Node("neg", "neg", ("x",), {})))
