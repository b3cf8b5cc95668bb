"""Decisions after a formula that TensorFlow's optimizer rewrites: bit-exact, or reported as unequal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.served import Served
from porting.tower import port_tower
from tests.witness import tf

PRICES = {"price": (np.arange(200) / 10).astype(np.float32)}


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A price in steps of ten cents, hashed, is the row of an embedding."""
    module = tf.Module()
    module.table = tf.Variable(np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "price")])
    def serve(price: Any) -> dict[str, Any]:
        step = tf.cast(price / 0.1, tf.int64)
        row = tf.strings.to_hash_bucket_fast(tf.strings.as_string(step), 64)
        return {"embedding": tf.gather(module.table, row)}

    module.serve = serve
    path = tmp_path_factory.mktemp("prices") / "model"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return path


def test_equal_as_served(prices: Path, oracle: Oracle) -> None:
    report = verify_with_tensorflow(port_tower(read(prices)), oracle, [PRICES])
    assert report.passed, report.lines()
    assert report.ids


def test_different_as_written(prices: Path, oracle: Oracle) -> None:
    """With the imitation off, the comparison fails on the same rows, and names ids."""
    report = verify_with_tensorflow(port_tower(read(prices), served=Served(optimizer=False)), oracle, [PRICES])
    assert not report.passed
    assert not all(part.passed for part in report.ids.values())
    (said,) = report.failures
    assert said.startswith("in the graph as TensorFlow serves it, the first node that differs is RealDiv '"), said
    assert "makes more of it" in said and said.endswith("the port was made with --optimizer off: leave that out"), said


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution over sequences of any length, and a dense layer whose shape follows the convolution's result."""
    rng = np.random.default_rng(0)
    module = tf.Module()
    module.filter = tf.Variable(rng.normal(size=(3, 4, 6)).astype(np.float32), name="filter")
    module.kernel = tf.Variable(rng.normal(size=(6, 2)).astype(np.float32), name="kernel")

    @tf.function(input_signature=[tf.TensorSpec([None, None, 4], tf.float32, "signal")])
    def serve(signal: Any) -> dict[str, Any]:
        found = tf.nn.relu(tf.nn.conv1d(signal, module.filter, 1, "SAME"))
        size = tf.shape(found)
        flat = tf.reshape(found, [size[0] * size[1], size[2]]) @ module.kernel
        return {"scores": tf.reshape(flat, [size[0], size[1], 2])}

    module.serve = serve
    path = tmp_path_factory.mktemp("signals") / "model"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return path


def test_what_only_onednn_refuses_is_compared_without_it(signals: Path, oracle: Oracle) -> None:
    """Its convolutions give an empty signal the shape of their input, and the product behind them is refused."""
    batches = [{"signal": np.ones((1, length, 4), np.float32)} for length in (0, 3)]
    assert isinstance(oracle.run(signals, ("serve",), "serving_default", batches)[0], str)
    report = verify_with_tensorflow(port_tower(read(signals)), oracle, batches)
    assert report.passed and report.mended == 1 and report.batches == 2, report.lines()
    assert any("without oneDNN, which fails on them: InvalidArgumentError" in line for line in report.lines())
    assert all(not isinstance(batch.outputs, str) for batch in report.recorded)


def test_without_onednn_the_relu_is_named(tmp_path: Path, oracle: Oracle) -> None:
    """0 for NaN is the fused relu's, and the product's before it is NaN on both sides."""
    module = tf.Module()
    module.kernel = tf.Variable(np.ones((4, 3), np.float32), name="kernel")
    module.bias = tf.Variable(np.ones(3, np.float32), name="bias")

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def serve(x: Any) -> dict[str, Any]:
        return {"y": tf.nn.relu(tf.nn.bias_add(tf.math.log(x) @ module.kernel, module.bias)) * 2.0}

    module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serving_default": serve})
    batch = {"x": np.float32([[1, 2, 3, 4], [-1, 2, 3, 4]])}
    report = verify_with_tensorflow(port_tower(read(tmp_path / "model"), served=Served(onednn=False)), oracle, [batch])
    assert not report.passed
    assert "the first node that differs is Relu '" in report.failures[-1], report.failures


REWRITTEN: dict[str, Any] = {
    "divided": lambda x: x / 0.1,
    "share": lambda x: tf.math.xdivy(x, 0.1),
    "divided_twice": lambda x: (x / 0.1) / 0.3,
    "scaled_twice": lambda x: (x * 0.1) * 0.3,
    "divided_and_scaled": lambda x: (x / 0.1) * 0.3,
    "moved_twice": lambda x: (x + 0.1) + 0.3,
    "moved_forth_and_back": lambda x: (x - 0.1) + 0.3,
    "taken_from": lambda x: 0.3 - (x - 0.7),  # what two formulas share is not rewritten
    "taken_from_a_sum": lambda x: 0.3 - (tf.square(x) + tf.abs(x) * x),
    "cubed": lambda x: x**3.0,
    "in_a_branch": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: x / 0.1, lambda: x / 0.3),
    "in_a_loop": lambda x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v / 0.3), [0, x])[1],
}


@pytest.fixture(scope="module")
def decisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs that are the bits of formulas, so that each last bit decides."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def serve(x: Any) -> dict[str, Any]:
        return {name: tf.bitcast(formula(x), tf.int32) for name, formula in REWRITTEN.items()}

    module.serve = serve
    path = tmp_path_factory.mktemp("decisions") / "model"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return path


def test_each_rewrite_is_missed_where_it_is_not_made(decisions: Path, oracle: Oracle) -> None:
    batch = {"x": np.random.default_rng(0).uniform(0.1, 9, 400).astype(np.float32)}
    as_served = verify_with_tensorflow(port_tower(read(decisions)), oracle, [batch])
    assert as_served.passed, as_served.lines()
    as_written = port_tower(read(decisions), served=Served(optimizer=False))
    report = verify_with_tensorflow(as_written, oracle, [batch])
    assert not [name for name, part in report.outputs.items() if part.passed]
