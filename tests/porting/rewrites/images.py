"""SavedModels for the tests of layers of images that have no weights."""

from __future__ import annotations

from functools import partial
from typing import Any

SHAPES = {"x": (None, None, 3), "f": (9, 8, 4), "s": (10, 4), "v": (5, 6, 7, 2), "line": (None, 4)}
POOLS = {
    "max_same": "MaxPool2d", "max_valid": "MaxPool2d", "max_wide": "MaxPool2d", "max_free": "MaxPool2d", "max_line": "MaxPool1d",
    "max_sequence": "MaxPool1d", "max_volume": "MaxPool3d", "avg_same": "AvgPool2d", "avg_valid": "AvgPool2d", "avg_free": "AvgPool2d",
    "avg_line": "AvgPool1d", "avg_sequence": "AvgPool1d", "avg_volume": "AvgPool3d", "mean": "GlobalAveragePooling",
    "mean_kept": "GlobalAveragePooling", "mean_line": "GlobalAveragePooling", "mean_volume": "GlobalAveragePooling",
    "most": "GlobalMaxPooling", "most_kept": "GlobalMaxPooling", "most_line": "GlobalMaxPooling",
    "up": "Upsample", "up_free": "Upsample", "up_between": "Upsample", "up_line": "Upsample", "up_volume": "Upsample", "up_wide": "Upsample", "up_open": "Upsample", "rescaled": "Rescaling",
    "divided": "Rescaling", "pad": "ZeroPadding", "pad_line": "ZeroPadding", "pad_volume": "ZeroPadding",
}  # fmt: skip
TF_KERAS = {"up_between_free": "Upsample"}
"""Keras 3 cannot trace it."""


def layers_of(keras: Any, is_3: bool) -> Any:
    """A layer for each output."""
    layers = keras.layers
    x, f, s, v, line = (keras.Input(shape, name=name) for name, shape in SHAPES.items())
    made = {
        "max_same": (partial(layers.MaxPooling2D, 3, strides=2, padding="same"), f),
        "max_valid": (partial(layers.MaxPooling2D, 2), x),
        "max_wide": (partial(layers.MaxPooling2D, (1, 3), strides=(2, 1), padding="same"), f),
        "max_free": (partial(layers.MaxPooling2D, 3, strides=2, padding="same"), x),
        "max_line": (partial(layers.MaxPooling1D, 2, padding="same"), line),
        "max_sequence": (partial(layers.MaxPooling1D, 3, strides=2), s),
        "max_volume": (partial(layers.MaxPooling3D, 2, padding="same"), v),
        "avg_same": (partial(layers.AveragePooling2D, 3, strides=2, padding="same"), f),
        "avg_valid": (partial(layers.AveragePooling2D, 2), x),
        "avg_free": (partial(layers.AveragePooling2D, 3, strides=2, padding="same"), x),
        "avg_line": (partial(layers.AveragePooling1D, 2, padding="same"), line),
        "avg_sequence": (partial(layers.AveragePooling1D, 3, strides=2), s),
        "avg_volume": (partial(layers.AveragePooling3D, 2, padding="same"), v),
        "mean": (layers.GlobalAveragePooling2D, x),
        "mean_kept": (partial(layers.GlobalAveragePooling2D, keepdims=True), f),
        "mean_line": (layers.GlobalAveragePooling1D, line),
        "mean_volume": (layers.GlobalAveragePooling3D, v),
        "most": (layers.GlobalMaxPooling2D, x),
        "most_kept": (partial(layers.GlobalMaxPooling2D, keepdims=True), f),
        "most_line": (layers.GlobalMaxPooling1D, s),
        "up": (partial(layers.UpSampling2D, (2, 3)), f),
        "up_free": (partial(layers.UpSampling2D, 2), x),
        "up_between": (partial(layers.UpSampling2D, (2, 3), interpolation="bilinear"), f),
        "up_line": (partial(layers.UpSampling1D, 3), s),
        "up_open": (partial(layers.UpSampling1D, 2), line),
        "up_volume": (partial(layers.UpSampling3D, 2), v),
        "up_wide": (partial(layers.UpSampling3D, (1, 2, 3)), v),
        "rescaled": (partial(layers.Rescaling, 1 / 127.5, offset=-1), x),
        "divided": (partial(layers.Rescaling, 1 / 255), f),
        "pad": (partial(layers.ZeroPadding2D, ((0, 1), (2, 1))), x),
        "pad_line": (partial(layers.ZeroPadding1D, 2), line),
        "pad_volume": (partial(layers.ZeroPadding3D, 1), v),
    }
    if not is_3:
        made["up_between_free"] = (partial(layers.UpSampling2D, 2, interpolation="bilinear"), x)
    return keras.Model(
        {"x": x, "f": f, "s": s, "v": v, "line": line}, {k: make(name=k)(of) for k, (make, of) in made.items()}
    )
