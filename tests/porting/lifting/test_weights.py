"""Weights owned by layers: owners, names, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from porting.conversion.values import Value
from porting.lifting.patterns import Refusal
from porting.lifting.view import View
from porting.lifting.weights import used
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec

X = TensorSpec("x", "float32", (None, 4))
W, B = torch.ones(2, 4), torch.zeros(2)
ARGS = {"in_features": 4, "out_features": 2}


def view(*more: Node, **store: Any) -> View:
    """Two nodes, `y` and `z`, beside the weights `dense.weight` and `dense.bias`."""
    nodes = (
        Node("w", "parameter", (), {"tensor": "dense.weight"}),
        Node("b", "parameter", (), {"tensor": "dense.bias"}),
        Node("y", "addmm", ("x", "w", "b"), {}),
        Node("z", "addmm", ("x", "w", "b"), {}),
        *more,
    )
    known = {"x": Value("x", "float32", ("n", 4))}
    return View(Graph((X,), nodes, {"y": "y", "z": "z"}), {"dense.weight": W, "dense.bias": B, **store}, known)


def linear(graph: View, root: str, called: str = "", **values: Any) -> None:
    weights = {"weight": "w", "bias": "b"}
    graph.layer(graph.nodes[root], "Linear", ARGS, "x", weights=weights, values=values, called=called)


def test_a_layer_is_called_after_its_first_weight_and_a_second_call_is_the_same_module() -> None:
    graph = view()
    linear(graph, "y")
    linear(graph, "z")
    assert [graph.nodes[name].attrs for name in "yz"] == [{"module": "dense"}] * 2
    assert graph.weights.owners == {"dense.weight": "dense", "dense.bias": "dense"}
    assert list(graph.modules) == ["dense"]


def test_a_weight_that_moves_is_known_by_its_old_name_and_read_under_the_new_one() -> None:
    graph = view()
    linear(graph, "y", called="tower.hidden", weight=2 * W)
    assert sorted(graph.store) == ["tower.hidden.bias", "tower.hidden.weight"]
    assert torch.equal(graph.tensor("w"), 2 * W)
    assert torch.equal(graph.tensor("b"), B)
    assert graph.weights.origins == {"tower.hidden.weight": "dense.weight", "tower.hidden.bias": "dense.bias"}


def test_a_weight_has_one_owner() -> None:
    graph = view()
    linear(graph, "y")
    with pytest.raises(Refusal, match=r"its weight 'dense.weight' already belongs to the layer 'dense'"):
        graph.layer(graph.nodes["z"], "Embedding", {}, "x", weights={"weight": "w"})
    assert graph.nodes["z"].op == "addmm"
    assert sorted(graph.store) == ["dense.bias", "dense.weight"]


def test_a_weight_that_a_loop_reads_too_keeps_its_name_and_value() -> None:
    body = Graph((X,), (Node("inner", "parameter", (), {"tensor": "dense.weight"}),), {"out": "inner"})
    loop = Node("loop", "while_loop", ("x",), {"body": body})
    with pytest.raises(Refusal, match="its weight 'dense\\.weight' is also used inside a loop or a branch"):
        linear(view(loop), "y", weight=2 * W)
    with pytest.raises(Refusal, match="inside a loop or a branch"):
        linear(view(loop), "y", called="other")
    linear(view(loop), "y")  # as it is, both can read it


def test_a_graph_uses_what_its_bodies_and_their_modules_name() -> None:
    words = ModuleSpec("StringLookup", {"vocabulary": "words", "first_id": 1, "oov_id": 0})
    called = Node("ids", "module", ("x",), {"module": "lookup"})
    body = Graph((X,), (called,), {"out": "ids"}, {"lookup": words})
    graph = Graph((X,), (Node("loop", "while_loop", ("x",), {"body": body}),), {"out": "loop"})
    assert used(graph, {"words": 1, "dense.weight": 2}) == {"words": 1}
