"""Inputs generated from the graph cover its tables, edges and id ranges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from porting.samples import samples
from porting.samples.samples import BATCH_SIZES, BUDGET, Sample, halves, rows
from torch_towers.graph.graph import Graph, Node, TensorSpec


def objects(*items: bytes) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def model(tables: Any = (), variables: Any = ()) -> Any:
    return SimpleNamespace(
        functions={},
        tables={name: SimpleNamespace(keys=keys) for name, keys in dict(tables).items()},
        variables={name: SimpleNamespace(shape=shape) for name, shape in dict(variables).items()},
    )


def batches(graph: Graph, holding: Any, **options: Any) -> list[dict[str, np.ndarray]]:
    return [sample.inputs for sample in samples.batches(graph, holding, **options)]


def drawn(graph: Graph, holding: Any) -> dict[str, list[Any]]:
    """All values of each input, over all batches."""
    found: dict[str, list[Any]] = {spec.name: [] for spec in graph.inputs}
    for batch in batches(graph, holding):
        for name, array in batch.items():
            found[name] += array.reshape(-1).tolist()
    return found


def lookup(source: str) -> tuple[Node, ...]:
    return (
        Node("t", "HashTableV2", (), {"table": "colors"}),
        Node("d", "Const", (), {"value": np.int64(0)}),
        Node("find", "LookupTableFindV2", ("t", source, "d")),
    )


def test_keys_of_the_table_that_an_input_reaches_in_the_domain_others_at_its_edges() -> None:
    word, other = TensorSpec("word", "string", (None,)), TensorSpec("other", "string", (None,))
    graph = Graph((word, other), (Node("strip", "StringStrip", ("word",)), *lookup("strip")), {"y": "find"})
    found = samples.batches(graph, model({"colors": objects(b"red", b"green")}))
    known, mixed = (
        {value for sample in found if sample.kind == kind for value in sample.inputs["word"].tolist()}
        for kind in ("domain", "edge")
    )
    assert known == {b"red", b"green"}
    assert {b"red", b"", b"\xff\xfe bad utf-8"} <= mixed
    assert not {b"red", b"green"} & {value for sample in found for value in sample.inputs["other"].tolist()}


def test_integers_of_a_table() -> None:
    graph = Graph((TensorSpec("id", "int64", (None,)),), lookup("id"), {"y": "find"})
    assert {1000, -5} <= set(drawn(graph, model({"colors": np.array([1000, -5])}))["id"])


def test_bucket_edges_and_the_numbers_beside_them() -> None:
    node = Node("b", "Bucketize", ("age",), {"boundaries": (0.5, 18.0)})
    found = drawn(Graph((TensorSpec("age", "float32", (None,)),), (node,), {"y": "b"}), model())["age"]
    below = np.nextafter(np.float32(18), np.float32(0))
    assert {0.5, 18.0, float(below), 19.0, 0.0} <= set(found)


def test_ids_stay_inside_the_smallest_table_and_reach_both_ends() -> None:
    nodes = (
        Node("v", "VarHandleOp", (), {"variable": "small"}),
        Node("u", "VarHandleOp", (), {"variable": "large"}),
        Node("a", "ResourceGather", ("u", "id")),
        Node("b", "ResourceGather", ("v", "id")),
    )
    graph = Graph((TensorSpec("id", "int64", (None,)),), nodes, {"y": "b", "z": "a"})
    found = samples.batches(graph, model(variables={"small": (7, 4), "large": (90, 4)}))
    assert {i for sample in found if sample.kind == "domain" for i in sample.inputs["id"].tolist()} == set(range(7))
    beyond = [
        sample.inputs["id"].tolist() for sample in found if not set(sample.inputs["id"].tolist()) <= set(range(7))
    ]
    assert sorted(beyond) == [[-1], [7]]


def test_what_a_matrix_product_gave_is_no_longer_the_input() -> None:
    nodes = (
        Node("v", "VarHandleOp", (), {"variable": "v"}),
        Node("m", "MatMul", ("x", "x")),
        Node("g", "ResourceGather", ("v", "m")),
    )
    found = drawn(Graph((TensorSpec("x", "int32", (None, 2)),), nodes, {"y": "g"}), model(variables={"v": (2, 2)}))
    assert max(found["x"]) > 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool", "string", "uint8"])
def test_shapes_and_dtypes_are_those_of_the_inputs(dtype: str) -> None:
    graph = Graph((TensorSpec("x", dtype, (None, 3)), TensorSpec("one", dtype, ())), (), {"y": "x"})
    found = batches(graph, model())
    assert [batch["x"].shape for batch in found[: len(BATCH_SIZES)]] == [(size, 3) for size in BATCH_SIZES]
    assert all(batch["x"].shape[1:] == (3,) for batch in found)
    assert all(batch["one"].shape == () for batch in found)
    assert all(batch["x"].dtype == (object if dtype == "string" else dtype) for batch in found)


@pytest.mark.parametrize(("size", "inside"), [(BUDGET // 2, 0), (3, BUDGET // 2)], ids=["fed", "made"])
def test_batches_are_as_small_as_what_they_make_is_large(size: int, inside: int) -> None:
    """An image file is one element, and its pixels are many."""
    graph = Graph((TensorSpec("x", "float32", (None, size)),), (), {"y": "x"})
    assert max(len(sample.inputs["x"]) for sample in samples.batches(graph, model(), inside=inside)) == 2


def test_a_refused_batch_is_halved_down_to_its_rows() -> None:
    whole = Sample({"x": np.arange(5), "side": np.array(7)}, "edge")
    first, second = halves(whole)
    assert (first.inputs["x"].tolist(), second.inputs["x"].tolist()) == ([0, 1], [2, 3, 4])
    assert (first.kind, int(second.inputs["side"]), rows(second.inputs)) == ("edge", 7, 3)
    assert halves(Sample({"x": np.arange(1)}, "domain")) == []
    assert halves(Sample({"x_values": np.arange(4), "x_row_splits": np.array([0, 2, 4])}, "domain")) == []


@pytest.mark.parametrize(
    ("values", "structure"),
    [
        (TensorSpec("x/values", "string", (None,)), [TensorSpec("x/indices", "int64", (None, 2)),
                                                     TensorSpec("x/dense_shape", "int64", (2,))]),
        (TensorSpec("x_values", "int32", (None,)), [TensorSpec("x_row_splits", "int64", (None,))]),
    ],
    ids=["sparse", "ragged"],
)  # fmt: skip
def test_components_of_one_value_fit_one_another(values: TensorSpec, structure: list[TensorSpec]) -> None:
    for batch in batches(Graph((values, *structure), (), {"y": values.name}), model()):
        found = {name.rpartition("/")[2]: array for name, array in batch.items()}
        if "indices" in found:
            rows, columns = found["dense_shape"].tolist()
            assert found["indices"].shape == (len(found["values"]), 2)
            assert (found["indices"] < [rows, columns]).all()
            assert len({tuple(pair) for pair in found["indices"].tolist()}) == rows * columns
        else:
            splits = found["x_row_splits"]
            assert (splits[0], splits[-1]) == (0, len(found["x_values"]))
            assert (np.diff(splits) >= 0).all()


def test_the_same_seed_is_the_same_batches() -> None:
    graph = Graph((TensorSpec("x", "string", (None,)),), (), {"y": "x"})
    first, second, other = (batches(graph, model(), seed=seed) for seed in (0, 0, 1))
    assert [batch["x"].tolist() for batch in first] == [batch["x"].tolist() for batch in second]
    assert [batch["x"].tolist() for batch in first] != [batch["x"].tolist() for batch in other]
