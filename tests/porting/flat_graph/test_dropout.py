"""Dropout that was left on: reported with the remedy, and removed in the port and in TensorFlow alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_towers
from porting import port
from porting.errors import PortingError
from porting.flat_graph.dropout import find
from porting.flat_graph.flatten import flatten
from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import port_tower
from tests.witness import tf

KERNEL = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def before_2_13(x: Any) -> Any:
    """A product with the mask."""
    kept = tf.cast(tf.random.uniform(tf.shape(x)) >= 0.3, tf.float32)
    return x * (1 / 0.7) * kept


def of_tf1(x: Any) -> Any:
    return tf.raw_ops.RealDiv(x=x, y=0.8) * tf.floor(0.8 + tf.random.uniform(tf.shape(x)))


def half(x: Any) -> Any:
    return tf.cast(tf.nn.dropout(tf.cast(x, tf.float16), rate=0.3), tf.float32)


SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "select": lambda x: tf.nn.dropout(x, rate=0.3),
    "noise shape": lambda x: tf.nn.dropout(x, rate=0.3, noise_shape=[1, 4]),
    "stateless": lambda x: tf.nn.experimental.stateless_dropout(x, 0.25, seed=[1, 2]),
    "product": before_2_13,
    "TF1": of_tf1,
    "half": half,
}


def saved(folder: Path, function: Callable[[Any, Any], Any]) -> None:
    model = tf.Module()
    model.kernel = tf.Variable(KERNEL, name="kernel")
    model.serve = tf.function(
        lambda x: {"y": function(model, x)}, input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")]
    )
    tf.saved_model.save(model, str(folder), signatures=model.serve)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_dropout_off(tmp_path: Path, oracle: Oracle, spelling: str) -> None:
    saved(tmp_path, lambda model, x: SPELLINGS[spelling](x) @ model.kernel)
    model = read(tmp_path)
    with pytest.raises(PortingError, match=r"dropout is left on at .*\(rate 0\.\d+\).*--dropout off"):
        port_tower(model)
    ported = port_tower(model, without_dropout=True)
    assert "TensorFlow is compared after the same change" in ported.notes[0]
    x = X.astype(np.float16).astype(np.float32) if spelling == "half" else X
    assert np.allclose(ported.tower().encode(x).numpy(), x @ KERNEL, rtol=1e-5, atol=1e-6)  # sums of 4 float32
    report = verify_with_tensorflow(ported, oracle)
    assert report.passed and report.rows > 0, report.lines()


def test_what_is_no_dropout_stays(tmp_path: Path) -> None:
    """A mask with another scale, and one with a drawn bound: their numbers are random."""

    def others(model: Any, x: Any) -> Any:
        draw = tf.random.uniform(tf.shape(x))
        return tf.where(draw >= 0.3, x * 2.0, 0.0) + tf.where(draw >= draw[:1], x, 0.0)

    saved(tmp_path, others)
    model = read(tmp_path)
    assert not find(flatten(model.graph("serving_default"), model.functions))
    with pytest.raises(PortingError, match="draws random numbers"):
        port_tower(model, without_dropout=True)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recurrent and plain dropout of Keras, in training mode."""
    layers = tf.keras.layers
    x = inputs = tf.keras.Input((6, 4))
    x = layers.GRU(5, dropout=0.2, recurrent_dropout=0.25, return_sequences=True)(x, training=True)
    x = layers.LSTM(5, dropout=0.2)(layers.SpatialDropout1D(0.3)(x, training=True), training=True)
    x = layers.Dense(3)(layers.Dropout(0.5)(layers.Dense(8, "relu")(x), training=True))
    tf.saved_model.save(tf.keras.Model(inputs, x), str(tmp_path / "model"))
    arguments = ["--query", str(tmp_path / "model"), "-o", str(tmp_path / "out")]
    assert port.main([*arguments, "--json"]) == 2
    assert "--dropout off" in json.loads(capsys.readouterr().out)["error"]
    assert port.main([*arguments, "--dropout", "off"]) == 0
    assert "dropout off: " in capsys.readouterr().out
    assert "dropout off: " in (tmp_path / "out" / "MODEL.md").read_text()
    rows = np.random.default_rng(2).normal(size=(7, 6, 4)).astype(np.float32)
    found = torch_towers.load(tmp_path / "out").encode_query(rows).numpy()
    again = tf.keras.Sequential(
        [layers.GRU(5, return_sequences=True), layers.LSTM(5), layers.Dense(8, "relu"), layers.Dense(3)]
    )
    again(rows)
    again.set_weights(tf.keras.Model(inputs, x).get_weights())
    assert np.allclose(found, again(rows).numpy(), rtol=1e-4, atol=1e-6)  # 6 steps of two recurrent layers in float32


def test_keras_3(tmp_path: Path, oracle: Oracle) -> None:
    """Its seed is a variable that is read and written at every call: without the draw, nothing needs it."""
    keras = pytest.importorskip("keras", reason="Keras 3 writes the graph; install the extra [parity]")
    image = keras.Input((4,))
    x = keras.layers.Dropout(0.4)(keras.layers.Dense(8)(image), training=True)
    model = keras.Model(image, keras.layers.Dense(3)(x))
    model.export(str(tmp_path), verbose=False)
    with pytest.raises(PortingError, match="dropout is left on"):
        port_tower(read(tmp_path))
    report = verify_with_tensorflow(port_tower(read(tmp_path), without_dropout=True), oracle)
    assert report.passed, report.lines()


def test_sampling_is_told_what_to_port(tmp_path: Path) -> None:
    saved(tmp_path, lambda model, x: tf.random.categorical(x @ model.kernel, 2))
    with pytest.raises(PortingError, match=r"Multinomial .* draws random numbers.*the logits.*torch\.multinomial"):
        port_tower(read(tmp_path))
