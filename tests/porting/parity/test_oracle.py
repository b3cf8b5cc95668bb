"""TensorFlow in a separate process: signatures, functions, refusals, and a process that dies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from porting.parity.oracle import Oracle
from porting.saved_model import protos

TEXT = np.array([b"red", b"\0", b"gr\xc3\xb6\xc3\x9fe"], object)
AGE = np.float32([1, 18, 70])


def expected(people: Path) -> Any:
    from tests.witness import tf, to_numpy

    found = tf.saved_model.load(str(people)).signatures["serving_default"](text=tf.constant(TEXT), age=tf.constant(AGE))
    return {name: to_numpy(value) for name, value in found.items()}


def test_a_signature(people: Path, oracle: Oracle) -> None:
    one, two = oracle.run(
        people, ("serve",), "serving_default", [{"text": TEXT, "age": AGE}, {"text": TEXT[:0], "age": AGE[:0]}]
    )
    for name, value in expected(people).items():
        assert one[name].tolist() == value.tolist(), name
        assert len(two[name]) == 0
    assert one["text"].tolist() == TEXT.tolist()
    assert oracle.version


def test_a_function_takes_positions_and_gives_them(people: Path, oracle: Oracle) -> None:
    a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones((2, 4), np.float32)
    (found,) = oracle.run(people, ("serve",), "score", [{"a": a, "b": b}])
    assert found["0"].tolist() == [6.0, 22.0]
    assert found["1"].tolist() == (a - b).tolist()


def test_a_refusal_is_a_message_and_the_other_batches_are_answered(people: Path, oracle: Oracle) -> None:
    asked = [{"x": np.float32([4.0])}, {"x": np.float32([-1.0])}, {"x": np.float32([9.0])}]
    first, refused, last = oracle.run(people, ("serve",), "strict", asked)
    assert first["root"].tolist() == [2.0]
    assert last["root"].tolist() == [3.0]
    assert isinstance(refused, str)
    assert refused.startswith("InvalidArgumentError: ")
    assert "\n" not in refused


def test_every_node_by_its_name(people: Path, oracle: Oracle) -> None:
    found = oracle.values(people, ("serve",), "serving_default", {"text": TEXT, "age": AGE})
    (tanh,) = (value for name, value in found.items() if name.endswith("Tanh"))
    np.testing.assert_allclose(tanh, expected(people)["embedding"], rtol=1e-6)


def test_what_tensorflow_cannot_load_is_an_error_and_it_lives_on(people: Path, tmp_path: Path, oracle: Oracle) -> None:
    with pytest.raises(PortingError, match=r"TensorFlow could not run .*nowhere \(serving_default\): "):
        oracle.run(tmp_path / "nowhere", ("serve",), "serving_default", [{}])
    with pytest.raises(PortingError, match="TensorFlow could not run"):
        oracle.run(people, ("serve",), "no_such_entry", [{}])
    assert oracle.run(people, ("serve",), "strict", [{"x": np.float32([1.0])}])[0]["root"].tolist() == [1.0]


def test_a_process_that_dies_is_an_error() -> None:
    with Oracle() as dying:
        dying._process._process.kill()
        dying._process._process.wait()
        with pytest.raises(PortingError, match="TensorFlow's process ended without an answer: it printed nothing"):
            dying.run("model", (), "serving_default", [{"x": np.zeros(1)}])


def test_two_saved_models_with_one_name_for_two_bodies(oracle: Oracle, tmp_path: Path) -> None:
    """TensorFlow numbers functions by process: towers saved by equal programs share names, though their bodies differ."""
    tf = pytest.importorskip("tensorflow")
    module = tf.Module()
    module.serve = tf.function(
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x * 3.0, lambda: x * 5.0),
        input_signature=[tf.TensorSpec([None], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(tmp_path / "first"), signatures=module.serve)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    path = tmp_path / "second" / "saved_model.pb"
    proto = protos.parse("SavedModel", path.read_bytes(), "second")
    constants = [
        node for f in proto.meta_graphs[0].graph_def.library.function for node in f.node_def if node.op == "Const"
    ]
    for node in constants:
        if list(node.attr["value"].tensor.float_val) == [3.0]:
            node.attr["value"].tensor.float_val[:] = [7.0]
    path.write_bytes(proto.SerializeToString())
    batch = {"x": np.array([1.0, 2.0], np.float32)}
    for name, factor in (("first", 3.0), ("second", 7.0)):
        values = oracle.values(tmp_path / name, ("serve",), "serving_default", batch)
        assert any(value.tolist() == [factor, 2 * factor] for value in values.values() if value.shape == (2,))
