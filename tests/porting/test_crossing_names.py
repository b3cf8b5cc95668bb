"""What an encoder's inputs are called: as the tower's inputs, as the layer that reads them, or as the author's scope."""

from __future__ import annotations

import pytest

from porting.crossing_names import origin, wanted_name
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec

TABLE = {"num_embeddings": 5, "embedding_dim": 2}


def graph(*nodes: Node, layer: str = "title_embedding", kind: str = "Embedding") -> Graph:
    inputs = (TensorSpec("title", "string", (None,)), TensorSpec("user_id", "int64", (None,)))
    return Graph(inputs, nodes, {}, {layer: ModuleSpec(kind, TABLE)})


def lookup(ref: str, layer: str) -> Node:
    return Node("found", "module", (ref,), {"module": layer})


@pytest.mark.parametrize(
    "name, layer, wanted",
    [
        ("model.words", "title_embedding", "model_words"),  # the author's
        ("embed.GatherV2", "user.title_embedding_2", "title_2_ids"),
        ("embed.GatherV2", "embedding_1", "title_ids"),  # of the only input
        ("scope.string_lookup_3", "scope.weight_2", "title_ids"),
    ],
)
def test_names_of_ids(name: str, layer: str, wanted: str) -> None:
    made = graph(Node(name, "hash", ("title",), {}), lookup(name, layer), layer=layer)
    assert wanted_name(name, name, made, made.nodes[1:], is_id=True) == wanted


def test_a_value_of_several_inputs_and_a_float_keep_the_name_of_their_node() -> None:
    made = graph(Node("sub.Add_1", "add", ("title", "user_id"), {}))
    assert wanted_name("sub.Add_1", "sub.Add_1", made, (), is_id=True) == "sub_Add_1"
    made = graph(Node("sub.Add_1:2", "add", ("title",), {}))
    assert wanted_name("sub.Add_1:2", "sub.Add_1:2", made, (), is_id=False) == "sub_Add_1_2"


def test_checked_ids_are_the_ids() -> None:
    made = graph(Node("first", "in_range", ("user_id", 5), {}), Node("second", "in_range", ("first", 3), {}))
    source = origin("second", {node.name: node for node in made.nodes})
    assert source == "user_id"
    assert wanted_name("second", source, made, (), is_id=True) == "user_id"


def test_ids_of_an_input_that_is_an_id() -> None:
    made = graph(Node("user.Cast", "cast", ("user_id",), {"dtype": "int32"}))
    assert wanted_name("user.Cast", "user.Cast", made, (), is_id=True) == "user_ids"


def test_the_operands_of_bags() -> None:
    made = graph(
        Node("genres.Fill", "sparse_bags", ("title",), {}),
        Node("bags", "module", ("genres.Fill:1", "genres.Fill:2"), {"module": "genres_embedding"}),
        layer="genres_embedding",
        kind="EmbeddingBag",
    )
    names = [wanted_name(f"genres.Fill:{i}", f"genres.Fill:{i}", made, made.nodes[1:], is_id=True) for i in (1, 2)]
    assert names == ["genres_ids", "genres_chunks"]
