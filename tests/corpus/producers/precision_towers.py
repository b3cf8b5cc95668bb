"""Towers at other precisions than float32: Keras's mixed policies and float64, in Keras 3 and tf_keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tf_keras

from tests.corpus.producers.keras_towers import Writer, draw_weights


def layers_at(k: Any, policy: str) -> Any:
    """The layers of an encoder, all of them at `policy`; the embedding comes out in it, and in float32 beside it."""

    def layer(kind: str, *args: Any, **options: Any) -> Any:
        return getattr(k.layers, kind)(*args, **options, dtype=policy)

    dtype = "float64" if policy == "float64" else "float32"
    x, ids = k.Input((8,), name="x", dtype=dtype), k.Input((5,), name="ids", dtype="int32")
    out: dict[str, Any] = {}
    for activation in ("gelu", "relu", "tanh", "sigmoid", "softmax", "swish", "elu", "softplus"):
        out[activation] = layer("Dense", 8, activation=activation, name=f"dense_{activation}")(x)
    embedded = layer("Embedding", 9, 8, name="table")(ids)
    out["mean"] = layer("GlobalAveragePooling1D")(embedded)
    out["layer_norm"] = layer("LayerNormalization", name="layer_norm")(out["mean"])
    out["batch_norm"] = layer("BatchNormalization", name="batch_norm")(out["gelu"])
    out["attention"] = layer("Attention", name="attention")([embedded, embedded])
    out["sum"] = layer("Add")([out["layer_norm"], out["batch_norm"]])
    out["embedding"] = layer("Dense", 4, name="projection")(layer("Concatenate")([out["sum"], out["tanh"]]))
    out["wide"] = k.layers.Dense(4, name="wide", dtype=dtype)(out["embedding"])
    model = k.Model([x, ids], out)
    draw_weights(model)
    return model


def written(k: Any, policy: str) -> Writer:
    """A model of Keras 3 by `export`, one of tf_keras by `save`."""

    def write(path: Path) -> None:
        model = layers_at(k, policy)
        model.export(str(path), verbose=False) if k is keras else model.save(str(path))

    write.__name__ = f"{k.__name__}_{policy}"
    return write


POLICIES = ("mixed_float16", "mixed_bfloat16", "float64")
WRITERS = {(k.__name__, policy): written(k, policy) for k in (keras, tf_keras) for policy in POLICIES}
