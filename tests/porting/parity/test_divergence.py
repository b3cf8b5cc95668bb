"""A deliberately wrong converter: the comparison fails and names the first node that differs."""

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
from tests.witness import tf

BATCH = {"text": np.array([b"red", b"?"], object), "age": np.float32([20, 70])}


@pytest.fixture
def broken(people: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], PortedTower]:
    """`broken(op, wrong)`: the tower ported with `change(t, right)` in the place of what the converter of `op` gives."""

    def port(op: str, change: Any) -> PortedTower:
        wrong(monkeypatch, op, change)
        return port_tower(read(people))

    return port


def wrong(monkeypatch: pytest.MonkeyPatch, op: str, change: Any) -> None:
    """Puts `change(t, right)` in the place of what the converter of `op` gives."""
    entry = CONVERTERS[op]
    function = lambda t, *operands, **attrs: change(t, entry.function(t, *operands, **attrs))  # noqa: E731
    monkeypatch.setitem(CONVERTERS, op, replace(entry, function=function))


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
    assert found.said.startswith(f"the first node that differs is {op} '")


def test_what_differs_is_said(broken: Any, oracle: Oracle) -> None:
    found = first_difference(broken("MatMul", WRONG["MatMul"]), oracle, BATCH).said
    assert "its shape is [4, 4], TensorFlow's [2, 4]" in found


def test_the_comparison_fails_and_says_where(broken: Any, oracle: Oracle) -> None:
    report = verify_with_tensorflow(broken("Tanh", WRONG["Tanh"]), oracle)
    assert not report.passed
    assert any("the first node that differs is Tanh '" in failure for failure in report.failures)


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


# -- inside of branches and loops ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop of `steps` rounds with a branch in it: tanh from the second round on."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([], tf.int32, "steps")])
    def serve(x: Any, steps: Any) -> dict[str, Any]:
        def body(i: Any, x: Any) -> Any:
            return i + 1, tf.cond(i > 0, lambda: tf.tanh(x) * 2.0, lambda: tf.sin(x) + 1.0)

        return {"y": tf.while_loop(lambda i, x: i < steps, body, [0, x])[1] + 1.0}

    module.serve = serve
    path = tmp_path_factory.mktemp("nested") / "model"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return path


ROUNDS = {"x": np.float32([[0.1, 0.2, 0.3]]), "steps": np.int32(3)}


@pytest.mark.parametrize("op, where", [("Tanh", r"/round_1/.*Tanh'"), ("Sin", r"/round_0/.*Sin'")])
def test_a_node_inside_of_a_branch_inside_of_a_loop_is_named(
    nested: Path, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, op: str, where: str
) -> None:
    wrong(monkeypatch, op, lambda t, right: t.mul(right, 1.01))
    said = first_difference(port_tower(read(nested)), oracle, ROUNDS).said
    assert re.search(f"the first node that differs is {op} '.*{where}", said), said


def test_only_the_rounds_that_there_are_count(nested: Path, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch, "Tanh", lambda t, right: t.mul(right, 1.01))
    once = first_difference(port_tower(read(nested)), oracle, {**ROUNDS, "steps": np.int32(1)})
    assert not once.found, once.said
