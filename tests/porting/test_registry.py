"""The table of converters: a function's signature is its op's schema, and an op has one converter."""

from __future__ import annotations

from typing import Any

import pytest

from porting.registry import CONVERTERS, converter


def test_one_function_may_convert_several_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porting.registry.CONVERTERS", table := {})

    @converter("Made", "MadeV2", outputs=("values", "indices"), ignores=("T",), refuses="nothing")
    def made(t: Any, x: Any, *, axis: int = 3) -> Any:
        return x

    assert set(table) == {"Made", "MadeV2"}
    entry = table["Made"]
    assert entry is table["MadeV2"]
    assert entry.function is made
    assert entry.signature.parameters["axis"].default == 3
    assert entry.hints["axis"] is int
    assert (entry.outputs, entry.ignores, entry.refuses) == (("values", "indices"), frozenset({"T"}), "nothing")


def test_an_op_has_one_converter() -> None:
    with pytest.raises(ValueError, match="'AddV2' has two converters"):
        converter("AddV2")(lambda t, x: x)
    assert CONVERTERS["AddV2"].function.__name__ != "<lambda>"
