"""PositionEmbedding: the first rows of a weight, as many as there are places."""

from __future__ import annotations

from typing import Any

from tests.porting.rewrites.by_hand import layer, lifted, ops

X = {"x": ("float32", ("n", "length", 4))}
TABLE = {"positions.weight": (7, 4)}


def first_rows(t: Any, x: Any, table: Any) -> Any:
    return t.add(x, t.slice(table, 0, t.size(x, axis=1), axis=0, step=1))


def test_as_many_rows_as_places() -> None:
    found = lifted(first_rows, X, TABLE)
    assert layer(found) == ("PositionEmbedding", {"num_embeddings": 7, "embedding_dim": 4})


def test_the_first_rows_for_places_of_a_fixed_number() -> None:
    found = lifted(
        lambda t, x, table: t.add(x, t.slice(table, 0, 5, axis=0, step=1)), {"x": ("float32", ("n", 5, 4))}, TABLE
    )
    assert layer(found) == ("PositionEmbedding", {"num_embeddings": 7, "embedding_dim": 4})


def test_first_rows_that_are_added_to_nothing_are_no_positions() -> None:
    found = lifted(lambda t, x, table: t.matmul(x, t.slice(table, 0, 4, axis=0, step=1)), X, TABLE)
    assert "slice" in ops(found)
    assert "they may be no positions" in "\n".join(found.refusals)


def test_all_rows() -> None:
    found = lifted(lambda t, x, table: t.add(x, table), {"x": ("float32", ("n", 7, 4))}, TABLE)
    assert layer(found)[0] == "PositionEmbedding"


def test_rows_of_another_shape_are_no_positions() -> None:
    found = lifted(lambda t, x, table: t.add(x, table), {"x": ("float32", ("n", 7, 4))}, {"positions.weight": (1, 4)})
    assert not found.graph.modules
    assert "it is not one row per position" in "\n".join(found.refusals)


def test_a_length_that_is_no_size_stays_a_slice() -> None:
    found = lifted(lambda t, x, table: t.add(x, t.slice(table, 0, -4, axis=0, step=1)), X, TABLE)
    assert "slice" in ops(found)


def normed(t: Any, x: Any, table: Any) -> Any:
    rows = t.unsqueeze(table, axis=0)
    mean = t.reduce_mean(rows, axes=(2,), keepdim=True)
    variance = t.reduce_mean(t.squared_difference(rows, mean), axes=(2,), keepdim=True)
    return t.add(x, t.mul(t.sub(rows, mean), t.rsqrt(t.add(variance, 1e-5))))


def test_a_table_that_is_normalized() -> None:
    found = lifted(normed, {"x": ("float32", ("n", 7, 4))}, TABLE)
    assert {spec.type for spec in found.graph.modules.values()} == {"PositionEmbedding", "LayerNorm"}
    assert set(found.store) == {"positions.weight"}


def test_a_table_that_is_not_normalized_is_no_table_of_positions() -> None:
    found = lifted(lambda t, x, table: t.mul(x, t.unsqueeze(table, axis=0)), {"x": ("float32", ("n", 7, 4))}, TABLE)
    assert not found.graph.modules
