from __future__ import annotations

import numpy as np
import pytest

from porting.flat_graph.components import component_of, components_of
from torch_towers.graph.graph import Graph, Node, TensorSpec


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["x_indices", "x_values", "x_dense_shape"], ["indices", "values", "shape"]),
        (["x/values", "x/splits0"], ["values", "splits"]),
        (["x_values", "x_row_splits"], ["values", "splits"]),
        (["genres__values", "genres__offsets"], ["values", "splits"]),
        (["x_values", "y_row_splits"], [None, None]),
        (["customer_values", "age"], [None, None]),
        (["x_indices", "x_values"], [None, None]),
    ],
)
def test_parts(names: list[str], parts: list[str | None]) -> None:
    assert [component_of(name, set(names)) for name in names] == parts


def graph(inputs: list[TensorSpec], *nodes: Node) -> Graph:
    return Graph(tuple(inputs), nodes, {})


PAIR = [TensorSpec("x", "string", (None,)), TensorSpec("x_1", "int64", (None,))]
SPARSE = [TensorSpec("i", "int64", (None, 2)), TensorSpec("v", "float32", (None,)), TensorSpec("s", "int64", (2,))]


def sliced(name: str, begin: int, end: int, **masks: int) -> list[Node]:
    constants = [Node(f"{name}_{i}", "Const", (), {"value": np.array([n])}) for i, n in enumerate((begin, end, 1))]
    return [*constants, Node(name, "StridedSlice", ("same", *(node.name for node in constants)), masks)]


def test_row_splits_are_known_by_their_use() -> None:
    same = Node("same", "Identity", ("x_1",))
    lengths = [same, *sliced("ends", 1, 0, end_mask=1), *sliced("starts", 0, -1, begin_mask=1)]
    assert components_of(graph(PAIR, *lengths)) == {"x": "values", "x_1": "splits"}
    assert components_of(graph(PAIR, *lengths[:5])) == {}  # all but the first: a shift in time, perhaps
    ngrams = Node("ngrams", "StringNGrams", ("x", "x_1"))
    assert components_of(graph(PAIR, ngrams)) == {"x": "values", "x_1": "splits"}
    assert components_of(graph([PAIR[0], TensorSpec("y", "int64", (None,))], ngrams)) == {}  # no input gives its name
    assert components_of(graph(PAIR, Node("table", "GatherV2", ("x", "x_1", "x_1")))) == {}


def test_sparse_values_are_known_by_their_use() -> None:
    product = Node("y", "SparseTensorDenseMatMul", ("i", "cast", "s", "w"))
    nodes = [Node("cast", "Cast", ("v",)), Node("w", "Const"), product]
    assert components_of(graph(SPARSE, *nodes)) == {"i": "indices", "v": "values", "s": "shape"}
    assert components_of(graph(SPARSE[:2], *nodes, Node("s", "Const"))) == {}
    dense = [*SPARSE[:1], TensorSpec("v", "float32", (None, 3)), *SPARSE[2:]]
    assert components_of(graph(dense, *nodes)) == {}
