"""References into a graph, and which inputs have rows."""

from __future__ import annotations

import dataclasses

import pytest

from torch_towers.graph.graph import BATCH, Node, TensorSpec, is_batched, node_of, references, rows_of


def test_references_are_names_with_or_without_a_result() -> None:
    assert node_of("split:2") == node_of("split") == "split"
    assert list(references(("a", 3, ("b:1", 2.5, ("c",)), None))) == ["a", "b:1", "c"]


def test_rows() -> None:
    assert rows_of(TensorSpec("x", "int64", (BATCH, 3))) == BATCH
    assert is_batched(TensorSpec("x", "int64", (BATCH, 3)))
    assert not is_batched(TensorSpec("x", "int64", (3, BATCH)))
    assert not is_batched(TensorSpec("x", "int64", ()))
    assert not is_batched(TensorSpec("x", "int64", None))


def test_a_node_is_not_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Node("a", "add").op = "sub"  # type: ignore[misc]
