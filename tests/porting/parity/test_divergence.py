"""A converter that is wrong on purpose: the comparison fails, and the first node that differs is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.divergence import first_difference
from porting.parity.oracle import Oracle
from porting.registry import CONVERTERS
from porting.saved_model import read
from porting.tower import PortedTower, port_tower

BATCH = {"text": np.array([b"red", b"?"], object), "age": np.float32([20, 70])}


@pytest.fixture
def broken(people: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], PortedTower]:
    """`broken(op, wrong)`: the tower ported with `wrong(t, right)` in the place of what the converter of `op` gives."""

    def port(op: str, wrong: Any) -> PortedTower:
        entry = CONVERTERS[op]
        function = lambda t, *operands, **attrs: wrong(t, entry.function(t, *operands, **attrs))  # noqa: E731
        monkeypatch.setitem(CONVERTERS, op, replace(entry, function=function))
        return port_tower(read(people))

    return port


WRONG = {
    "Tanh": lambda t, right: t.mul(right, 1.01),
    "ConcatV2": lambda t, right: t.neg(right),
    "ArgMax": lambda t, right: t.mul(right, 0),
    "MatMul": lambda t, right: t.concat(right, right, axis=0),
}


@pytest.mark.parametrize("op", WRONG)
def test_the_first_node_that_differs_is_named(broken: Any, oracle: Oracle, op: str) -> None:
    found = first_difference(broken(op, WRONG[op]), oracle, BATCH)
    assert found.found
    assert found.said.startswith(f"the first node at which the two part is {op} '")


def test_what_differs_is_said(broken: Any, oracle: Oracle) -> None:
    found = first_difference(broken("MatMul", WRONG["MatMul"]), oracle, BATCH).said
    assert "its shape is [4, 4], TensorFlow's [2, 4]" in found


def test_the_comparison_fails_and_says_where(broken: Any, oracle: Oracle) -> None:
    report = verify_with_tensorflow(broken("Tanh", WRONG["Tanh"]), oracle)
    assert not report.passed
    assert any("the first node at which the two part is Tanh '" in failure for failure in report.failures)


def test_both_values_and_the_inputs_are_told_without_numpy(broken: Any, oracle: Oracle) -> None:
    said = first_difference(broken("ArgMax", lambda t, right: t.mul(right, 0)), oracle, BATCH).said
    assert re.search(
        r"at \[\d\] the port gives 0, TensorFlow [12], for row \d: text = '(red|\?)', age = (20|70)$", said
    )


def test_a_lift_is_blamed_only_where_every_node_is_equal_and_something_was_lifted(people: Path, oracle: Oracle) -> None:
    lifted = first_difference(port_tower(read(people)), oracle, BATCH)
    assert not lifted.found
    assert re.search(r"all \d+ nodes are equal on this batch: what remains is a lift \(", lifted.said)
    plain = first_difference(port_tower(read(people), lifts=False), oracle, BATCH)
    assert "lift" not in plain.said


def test_where_tensorflow_stops_what_there_is_is_compared(people: Path, oracle: Oracle) -> None:
    said = first_difference(port_tower(read(people), "strict"), oracle, {"x": np.float32([-1.0])}).said
    assert re.search(r"op by op, \d+ of \d+ nodes were compared, and are equal", said) or "refuses" in said
