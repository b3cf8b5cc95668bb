"""SavedModels for the tests of convolutions: every Keras layer, and near misses."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.witness import tf

SHAPES = {"x": (9, 8, 4), "s": (10, 4), "v": (5, 6, 7, 2), "free": (None, None, 4), "line": (None, 4)}
EXPECTED = {
    "conv": "Conv2d", "strided": "Conv2d", "dilated": "Conv2d", "dilated_free": "Conv2d", "grouped": "Conv2d",
    "pointwise": "Conv2d", "strided_free": "Conv2d", "line_strided": "Conv1d", "causal": "Conv1d", "line_dilated": "Conv1d", "volume": "Conv3d",
    "depthwise": "Conv2d", "depthwise_strided": "Conv2d", "depthwise_dilated": "Conv2d", "depthwise_line": "Conv1d",
    "separable": "Conv2d", "separable_line": "Conv1d", "back": "ConvTranspose2d", "back_valid": "ConvTranspose2d",
    "back_line": "ConvTranspose1d", "back_free": "ConvTranspose1d", "back_volume": "ConvTranspose3d",
    "norm": "BatchNorm", "norm_shift": "BatchNorm", "norm_scale": "BatchNorm", "norm_behind": "BatchNorm",
}  # fmt: skip


def layers_of(keras: Any, is_3: bool) -> Any:
    """A layer for each output."""
    layers = keras.layers
    x, s, v, free, line = (keras.Input(shape, name=name) for name, shape in SHAPES.items())
    made = {
        "conv": (partial(layers.Conv2D, 6, 3, padding="same"), x),
        "strided": (partial(layers.Conv2D, 6, 3, strides=2, padding="same", use_bias=False), x),
        "dilated": (partial(layers.Conv2D, 6, 3, dilation_rate=2, padding="same"), x),
        "dilated_free": (partial(layers.Conv2D, 6, 3, dilation_rate=2, padding="same"), free),
        "grouped": (partial(layers.Conv2D, 6, 3, groups=2), x),
        "pointwise": (partial(layers.Conv2D, 3, 1, strides=2, padding="same"), free),
        "strided_free": (partial(layers.Conv2D, 6, 3, strides=2, padding="same"), free),
        "line_strided": (partial(layers.Conv1D, 6, 3, strides=2, padding="same"), s),
        "causal": (partial(layers.Conv1D, 6, 3, padding="causal", dilation_rate=2), s),
        "line_dilated": (partial(layers.Conv1D, 6, 3, padding="same", dilation_rate=3), line),
        "volume": (partial(layers.Conv3D, 3, 2, padding="same"), v),
        "depthwise": (partial(layers.DepthwiseConv2D, 3, padding="same", depth_multiplier=2), x),
        "depthwise_strided": (partial(layers.DepthwiseConv2D, 3, strides=2, padding="same"), x),
        "depthwise_dilated": (partial(layers.DepthwiseConv2D, 3, dilation_rate=2), x),
        "depthwise_line": (partial(layers.DepthwiseConv1D, 3, padding="same", depth_multiplier=2), s),
        "separable": (partial(layers.SeparableConv2D, 5, 3, padding="same"), x),
        "separable_line": (partial(layers.SeparableConv1D, 5, 3, padding="same"), s),
        "back": (partial(layers.Conv2DTranspose, 3, 3, strides=2, padding="same"), x),
        "back_valid": (partial(layers.Conv2DTranspose, 3, 2, strides=3), x),
        "back_line": (partial(layers.Conv1DTranspose, 3, 3, strides=2, padding="same"), s),
        "back_free": (partial(layers.Conv1DTranspose, 3, 3, strides=2, padding="same"), line),
        "back_volume": (partial(layers.Conv3DTranspose, 3, 2, strides=2, padding="same"), v),
        "norm": (partial(layers.BatchNormalization), x),
        "norm_shift": (partial(layers.BatchNormalization, scale=False), x),
        "norm_scale": (partial(layers.BatchNormalization, center=False, epsilon=1e-5), x),
        "norm_behind": (partial(layers.BatchNormalization), layers.Conv2D(6, 3, use_bias=False, name="before")(x)),
    }
    out: dict[str, Any] = {}
    for name, (layer, value) in made.items():
        out[name] = layer(name=name)(value)
    model = keras.Model({"x": x, "s": s, "v": v, "free": free, "line": line}, out)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        value = rng.normal(0, 0.5, weight.shape).astype(np.float32)
        name = weight.path if hasattr(weight, "path") else weight.name
        weight.assign(np.abs(value) + 0.1 if "variance" in name else value)
    return model


def near_misses(path: Path) -> None:
    """Near misses of torch's convolutions, one per output."""
    rng = np.random.default_rng(3)

    def weight(name: str, *shape: int) -> Any:
        return tf.Variable(rng.normal(0, 0.5, shape).astype(np.float32), name=name)

    class Almost(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tied, self.twice, self.narrow = (
                weight("tied", 3, 3, 4, 4),
                weight("twice", 3, 3, 4, 4),
                weight("narrow", 3, 3, 4, 6),
            )
            self.number, self.row, self.wide = weight("number", 1), weight("row", 8, 1), weight("wide", 3, 3, 4, 8)
            self.holes, self.first = weight("holes", 3, 3, 4, 5), weight("first", 3, 3, 4, 6)
            self.scale, self.mean, self.variance = (
                weight("scale", 4),
                weight("mean", 4),
                tf.Variable([0.5, 1.0, 2.0, 0.1]),
            )

        @tf.function(input_signature=[tf.TensorSpec([None, 9, 8, 4], tf.float32, "x")])
        def __call__(self, x: Any) -> dict[str, Any]:
            out: dict[str, Any] = {}
            out["tied"] = tf.nn.conv2d(x, self.tied, 1, "SAME") + tf.reduce_sum(self.tied)
            out["twice"] = tf.nn.conv2d(tf.nn.conv2d(x, self.twice, 1, "SAME"), self.twice, 2, "SAME")
            out["number"] = tf.nn.conv2d(x, self.narrow, 1, "SAME") + self.number
            out["row"] = tf.nn.conv2d(x, self.wide, 1, "SAME") + self.row
            apart = tf.space_to_batch(x, [2, 2], [[2, 3], [2, 2]])
            out["holes"] = tf.batch_to_space(
                tf.nn.conv2d(apart, self.holes, [1, 2, 2, 1], "VALID"), [2, 2], [[0, 0], [0, 0]]
            )
            out["norm"] = tf.compat.v1.nn.fused_batch_norm(
                x, self.scale, tf.reduce_mean(x, [0, 1, 2]), self.mean, self.variance, is_training=False
            )[0]
            return out

    module = Almost()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.__call__})
