from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from porting.parity.comparison import not_compared, verify_with_reference, verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import port_tower


@pytest.mark.parametrize("entry", ["serving_default", "query", "score", "strict"])
@pytest.mark.parametrize("lifts", [True, False], ids=["lifted", "op by op"])
def test_every_entry_is_equal(people: Path, oracle: Oracle, entry: str, lifts: bool) -> None:
    report = verify_with_tensorflow(port_tower(read(people), entry, lifts=lifts), oracle)
    assert report.passed, report.lines()
    assert report.compared_with == f"TensorFlow {oracle.version}"


def test_inputs_of_the_user(people: Path, oracle: Oracle) -> None:
    batch = {"text": np.array([b"blue"], object), "age": np.float32([np.nan])}
    assert verify_with_tensorflow(port_tower(read(people)), oracle, [batch]).passed


def test_a_port_that_takes_what_tensorflow_refuses_fails(people: Path, oracle: Oracle) -> None:
    """And both refusing is equal: an input below zero."""
    strict = port_tower(read(people), "strict")
    below = [{"x": np.float32([-1.0])}, {"x": np.float32([1.0])}]
    assert verify_with_tensorflow(strict, oracle, below).passed
    nodes = tuple(node for node in strict.spec.encoder.nodes if node.op != "check")
    before = tuple(node for node in strict.spec.preprocess.nodes if node.op != "check")
    assert len(nodes) + len(before) < len(strict.spec.encoder.nodes) + len(strict.spec.preprocess.nodes)
    from dataclasses import replace

    spec = strict.spec
    strict.spec = replace(
        spec, encoder=replace(spec.encoder, nodes=nodes), preprocess=replace(spec.preprocess, nodes=before)
    )
    assert not verify_with_tensorflow(strict, oracle, below).passed


def recorded(people: Path, oracle: Oracle) -> dict[str, Any]:
    batch = {"text": np.array([b"blue", b"x"], object), "age": np.float32([3, 4])}
    (answer,) = oracle.run(people, ("serve",), "serving_default", [batch])
    return {
        **{f"serving_default|in|{name}": value for name, value in batch.items()},
        **{f"serving_default|out|{name}": value for name, value in answer.items()},
    }


@pytest.mark.parametrize("output", ["embedding", "ids", "best", "age", "text"])
def test_recorded_answers(people: Path, oracle: Oracle, output: str) -> None:
    """Each output is looked at: one changed element fails."""
    arrays = recorded(people, oracle)
    ported = port_tower(read(people))
    assert verify_with_reference(ported, arrays).passed
    changed = arrays[f"serving_default|out|{output}"] = arrays[f"serving_default|out|{output}"].copy()
    changed.reshape(-1)[0] = b"other" if changed.dtype == object else changed.reshape(-1)[0] + 1
    report = verify_with_reference(ported, arrays)
    assert not report.passed
    assert any(output in line for line in report.lines())


def test_nothing_recorded_and_nothing_compared(people: Path) -> None:
    with pytest.raises(PortingError, match="nothing is recorded for 'serving_default'"):
        verify_with_reference(port_tower(read(people)), {"other|out|y": np.zeros(1)})
    assert not_compared("nobody asked").lines() == ["  not compared: nobody asked"]
