"""A tower as data: what does not fit together is said, and which inputs an output needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from torch_towers.errors import CheckpointError
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.graph.spec import Padding, TowerSpec

X, Y = TensorSpec("x", "int64", ("batch", None)), TensorSpec("y", "int64", ("batch",))
IDS, SIZE = TensorSpec("ids", "int64", ("batch", None)), TensorSpec("size", "int64", ("batch",))
OUT, WORD = TensorSpec("out", "float32", ("batch", 4)), TensorSpec("word", "string", ("batch",))
SPEC = TowerSpec(
    preprocess=Graph((X, Y), (Node("a", "add", ("x", 1)), Node("b", "add", ("y", 1))), {"ids": "a", "size": "b"}),
    encoder=Graph((IDS, SIZE), (Node("e", "cast", ("ids",)),), {"out": "e"}),
    postprocess=Graph((SIZE,), (Node("w", "as_string", ("size",)),), {"word": "w"}),
    inputs=(X, Y),
    outputs=(OUT, WORD),
    padding=(Padding("ids", 0, ("ids",), ("out",)),),
)


def test_what_fits() -> None:
    SPEC.check()
    replace(SPEC, embedding="out", defaults={"y": "stored"}).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocess": replace(SPEC.preprocess, outputs={"ids": "a"})}, "the encoder takes 'size', which the pre"),
        ({"postprocess": Graph((WORD,), (), {})}, "the postprocessing takes 'word', which nothing gives"),
        ({"postprocess": None}, "the output 'word' of the signature: no graph produces it"),
        ({"embedding": "ids"}, "the embedding 'ids' is not an output"),
        ({"defaults": {"z": "stored"}}, "'z' has a default, but is not an input"),
        (
            {"padding": (Padding("size", 0, ("size",), ("out",)),)},
            "the padding of 'size' names 'size', which has no rows",
        ),
        ({"padding": (Padding("ids", 0, ("ids",), ("word",)),)}, "the padding of 'ids' names 'word'"),
        ({"padding": (Padding("ids", 0, (), ("out",)),)}, "the padding of 'ids' names 'ids'"),
    ],
)
def test_what_does_not(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        replace(SPEC, **changes).check()


def test_needs() -> None:
    """Through all three graphs, and nothing beside."""
    assert SPEC.needs("out") == {"x"}
    assert SPEC.needs("word") == {"y"}


def test_names_that_differ_correspond_by_position() -> None:
    assert SPEC.renamed() == {}
    other = replace(SPEC, inputs=(replace(X, name="a b"), Y))
    assert other.renamed() == {"a b": "x", "y": "y"}
    with pytest.raises(CheckpointError, match="1 inputs, the preprocessing 2"):
        replace(SPEC, inputs=(replace(X, name="a b"),)).renamed()
