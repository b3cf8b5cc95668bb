"""What is done with every step of a sequence: TimeDistributed of Keras 3, by hand, and near misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.witness import tf


def write(path: Path) -> None:
    """`s [n, 3, 6]` and `frames [n, 3, 5, 5, 2]` in."""
    model, owner = _model(), tf.Module()
    others = [keras.layers.Dense(4, name=f"other_{step}") for step in range(3)]
    scale = tf.Variable(tf.zeros(6), name="scale")

    def run(s: Any, frames: Any) -> dict[str, Any]:
        xs = [s[:, step] for step in range(3)]
        made: dict[str, list[Any]] = {
            "turned": [tf.concat([tf.tanh(xs[step]), xs[2 - step]], -1) for step in range(3)],
            "scaled": [tf.nn.softmax(x * scale + 2.0) for x in xs],
            "means": [tf.reduce_mean(x, 1) for x in xs],
            # near misses
            "of_rows": [x - tf.reduce_mean(x, 0, keepdims=True) for x in xs],
            "of_first": [x * xs[0] for x in xs],
            "unequal": [tf.tanh(xs[0]), tf.tanh(xs[1]), tf.sigmoid(xs[2])],
            "two_of_three": [tf.tanh(xs[0]), tf.tanh(xs[1])],
            "other_weights": [other(x) for other, x in zip(others, xs, strict=True)],
        }
        return {**model([s, frames]), **{name: tf.stack(items, 1) for name, items in made.items()}}

    specs = tf.TensorSpec([None, 3, 6], name="s"), tf.TensorSpec([None, 3, 5, 5, 2], name="frames")
    function = tf.function(run).get_concrete_function(*specs)
    rng = np.random.default_rng(3)
    owner.variables_of_all = [*function.variables]
    for variable in function.variables:
        if "variance" not in variable.name:
            variable.assign(np.asarray(rng.normal(0, 0.5, variable.shape), np.float32))
    tf.saved_model.save(owner, str(path), signatures=function)


def _model() -> Any:
    layers = keras.layers
    s, frames = keras.Input((3, 6), name="s"), keras.Input((3, 5, 5, 2), name="frames")
    picture = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(3, 2, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(4, name="out"),
        ],
        name="picture",
    )
    out = {
        "dense": layers.TimeDistributed(layers.Dense(7, activation="relu", name="dense"), name="each")(s),
        "normed": layers.TimeDistributed(layers.LayerNormalization(name="norm"), name="normed")(s),
        "pictures": layers.TimeDistributed(picture, name="pictures")(frames),
        "pixels": layers.TimeDistributed(layers.Flatten(name="pixels"), name="all")(frames),
    }
    return keras.Model([s, frames], out)
