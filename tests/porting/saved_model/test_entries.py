"""Entries: the signatures that TensorFlow lists, and the one that is taken where nobody names one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from porting.errors import PortingError
from porting.saved_model import protos, read
from tests.porting.saved_model.conftest import mutate
from tests.porting.saved_model.test_model import check_graph, check_whole_model
from torch_towers.graph.graph import TensorSpec


def test_signature_of_a_module(module_path: Path) -> None:
    model = read(module_path)
    assert model.tags == ("serve",)
    assert list(model.signatures) == ["serve"]
    assert model.default_entry() == "serve"
    signature = model.signatures["serve"]
    assert signature.inputs == {"x": TensorSpec("x", "float32", (None, 2))}
    assert signature.outputs == {
        "total": TensorSpec("total", "complex64", ()), "words": TensorSpec("words", "string", (5,)), "y": TensorSpec("y", "float32", None)
    }  # fmt: skip
    graph = model.graph("serve")
    check_graph(graph)
    assert graph.inputs == (TensorSpec("x", "float32", (None, 2)),)
    assert set(graph.outputs) == {"total", "words", "y"}
    used = {node.attrs["variable"] for node in graph.nodes if "variable" in node.attrs}
    assert used >= {"scalar", "words", "twin", "twin_1"}
    assert "unused" not in used
    assert not any(node.op == "Placeholder" for node in graph.nodes)
    check_whole_model(model)


@pytest.mark.parametrize(
    "names, chosen",
    [
        (["serving_default", "serve"], "serving_default"),
        (["a", "serve"], "serve"),
        (["only"], "only"),
        (["a", "b"], None),
        ([], "__call__"),
    ],
)
def test_the_default_entry(
    module_path: Path, copy: Callable[[Path], Path], names: list[str], chosen: str | None
) -> None:
    path = copy(module_path)

    def sign(meta: Any) -> None:
        good = protos.message_class("SignatureDef")()
        good.CopyFrom(meta.signature_def["serve"])
        del meta.signature_def["serve"]
        for name in names:
            meta.signature_def[name].CopyFrom(good)

    mutate(path, sign)
    model = read(path)
    if chosen is not None:
        assert model.default_entry() == chosen
        return
    with pytest.raises(PortingError, match="name one of: a, b, "):
        model.default_entry()
