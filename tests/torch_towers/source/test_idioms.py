"""Rewrites to the idioms of PyTorch: what each gives, what it leaves, and that the numbers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.torch_towers.source.test_module import made, tower_of
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.source.check import imported

X = TensorSpec("x", "float32", ("batch", 3, 4))
IDS = TensorSpec("ids", "int64", ("batch", 5))
TABLE = {"num_embeddings": 5, "embedding_dim": 2}


def forward(
    folder: Path,
    nodes: list[Node],
    *given: Tensor,
    inputs: tuple[TensorSpec, ...] = (X,),
    modules: Any = None,
    **store: Tensor,
) -> str:
    """The `forward` of the file for these nodes, whose last is the output, after it gave what the graph gives."""
    graph = Graph(inputs, tuple(nodes), {"y": nodes[-1].name}, modules or {})
    source = made(graph, store)
    file = folder / "idiom.py"
    file.write_text(source.text)
    module = imported(file)
    towers = module.TwoTower()
    weights = {f"query.{name}": value for name, value in store.items()}
    towers.load_state_dict({name: weights[source.names.get(name, name)] for name in towers.state_dict()})
    expected = tower_of(graph, store).encoder(**dict(zip((spec.name for spec in inputs), given, strict=True)))["y"]
    torch.testing.assert_close(towers.query(*given), expected, rtol=0, atol=0, equal_nan=True)
    return source.text[source.text.index("class QueryTower") : source.text.index("class TwoTower")]


def test_reshapes(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4)
    size = Node("n", "size", ("x",), {"axis": 0})
    assert "return x.flatten(1)" in forward(tmp_path, [size, Node("y", "reshape", ("x", "n", 12))], x)
    assert "return x.unsqueeze(1)" in forward(tmp_path, [size, Node("y", "reshape", ("x", "n", 1, 3, 4))], x)
    assert "x.reshape(x.shape[0], 4, 3)" in forward(tmp_path, [size, Node("y", "reshape", ("x", "n", 4, 3))], x)


def test_masks_take_no_detour(tmp_path: Path) -> None:
    ids = torch.tensor([[1, 2, 0, 0, 3]])
    nodes = [
        Node("some", "not_equal", ("ids", 0)),
        Node("number", "cast", ("some",), {"dtype": "int32"}),
        Node("wide", "unsqueeze", ("number",), {"axis": 1}),
        Node("y", "cast", ("wide",), {"dtype": "float32"}),
    ]
    assert "return (ids != 0).unsqueeze(1).float()" in forward(tmp_path, nodes, ids, inputs=(IDS,))


def test_one_cat(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4)
    inner = Node("inner", "concat", ("x", "x"), {"axis": 2})
    assert "torch.cat([x, x, x], dim=-1)" in forward(
        tmp_path, [inner, Node("y", "concat", ("inner", "x"), {"axis": -1})], x
    )
    text = forward(tmp_path, [inner, Node("y", "concat", ("inner", "inner"), {"axis": 1})], x)
    assert text.count("torch.cat") == 2, "along another axis, and read twice"


def test_positions_in_order_are_the_table(tmp_path: Path) -> None:
    modules = {"words": ModuleSpec("Embedding", TABLE), "places": ModuleSpec("Embedding", TABLE)}
    nodes = [
        Node("words", "module", ("ids",), {"module": "words"}),
        Node("range", "constant", (), {"tensor": "range"}),
        Node("places", "module", ("range",), {"module": "places"}),
        Node("y", "add", ("words", "places")),
    ]
    store = {"words.weight": torch.randn(5, 2), "places.weight": torch.randn(5, 2)}
    ids = torch.tensor([[1, 2, 0, 0, 3]])
    text = forward(tmp_path, nodes, ids, inputs=(IDS,), modules=modules, range=torch.arange(5), **store)
    assert "return self.words(ids) + self.places.weight" in text and "register_buffer" not in text
    text = forward(tmp_path, nodes, ids, inputs=(IDS,), modules=modules, range=torch.arange(5).flip(0), **store)
    assert "self.places(self.range" in text


def test_a_choice_that_is_always_the_same(tmp_path: Path) -> None:
    nodes = [
        Node("zeros", "zeros_like", ("x",)),
        Node("ones", "add", ("zeros", 1.0)),
        Node("mask", "cast", ("ones",), {"dtype": "bool"}),
        Node("twice", "mul", ("x", 2.0)),
        Node("y", "where", ("mask", "twice", "x")),
    ]
    assert "return x * 2.0" in forward(tmp_path, nodes, torch.randn(2, 3, 4))
    nodes[1] = Node("ones", "add", ("zeros", 0.0))
    assert "torch.where" in forward(tmp_path, nodes, torch.randn(2, 3, 4))


def test_relu_of_an_average_of_nothing(tmp_path: Path) -> None:
    x = torch.tensor([[[float("nan"), -1.0, float("inf"), 2.0]] * 3])
    assert "return relu(x)" in forward(tmp_path, [Node("y", "relu", ("x",), {"no_nan": True})], x)
    assert "return relu6(x)" in forward(tmp_path, [Node("y", "relu6", ("x",), {"no_nan": True})], x)
    assert "return F.relu(x)" in forward(tmp_path, [Node("y", "relu", ("x",))], x)
