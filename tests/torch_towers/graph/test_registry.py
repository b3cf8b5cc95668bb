"""The closed tables: an entry's signature is its schema, and no name stands twice."""

from __future__ import annotations

import inspect

import pytest
from torch import Tensor, device

from torch_towers import layers, ops
from torch_towers.graph.registry import MODULES, OPS, Op, elementwise, op, returns

assert layers and ops  # fill the tables


def test_a_name_is_registered_once() -> None:
    before = dict(OPS)
    with pytest.raises(ValueError, match="'add' is registered twice"):
        op(name="add")(lambda x: x)
    assert before == OPS


def test_what_an_entry_says_of_itself() -> None:
    def made(x: Tensor, *, axis: int = 0, device: device) -> Tensor:
        return x

    entry = Op("made", made, "early", None)
    assert list(entry.signature.parameters) == ["x", "axis", "device"]
    assert entry.hints["axis"] is int
    assert entry.takes_device
    assert not OPS["add"].takes_device


@pytest.mark.parametrize("table", [OPS, MODULES], ids=["OPS", "MODULES"])
def test_every_entry_is_documented_and_runs_somewhere(table: dict[str, Op]) -> None:
    for name, entry in table.items():
        assert entry.stage in ("tensor", "early", "host"), name
        assert entry.name == name
        assert inspect.getdoc(entry.function), name


def test_inference() -> None:
    x = ("float16", ("n", 3))
    assert elementwise()(x, ("int64", None)) == [x]
    assert elementwise("bool")(x) == [("bool", ("n", 3))]
    assert returns(("int64", (None,)))(x, key=1) == (("int64", (None,)),)
