"""Keras 3 (`model.export`) and tf_keras (`model.save`, `tf.saved_model.save`): the layers of feature towers, many in each model.

Every model outputs the tower's embedding and the results of its layers, so that nothing is compared only through
a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tf_keras

from tests.witness import tf

Writer = Callable[[Path], None]

USERS = ["42", "7", "über", "138", ""]
TAGS = ["red", "green", "blue", "dark red"]
IDS = [3, -5, 70000, 2**40]
TITLES = ["the cat sat", "The Dog, the mat!", "a cat and a dog", "naïve café"]
ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "sigmoid", "hard_sigmoid", "softplus", "softsign", "tanh", "swish",
    "exponential", "mish", "softmax", "linear",
]  # fmt: skip


def draw_weights(model: Any, seed: int = 0) -> None:
    """Random weights instead of zeros and ones; statistics that a layer computed stay."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0, 0.4, weight.shape).astype(np.float32))
    for weight in model.non_trainable_variables:
        if "moving" in getattr(weight, "name", ""):  # a vocabulary has none
            weight.assign(rng.uniform(0.2, 0.9, weight.shape).astype(np.float32))


def lookups(k: Any) -> Any:
    """Every lookup and encoding, each with its options."""
    layers, new = k.layers, k is keras
    user = k.Input((1,), name="user", dtype="string")
    tags = k.Input((3,), name="tags", dtype="string")
    number = k.Input((2,), name="number")
    identifier = k.Input((1,), name="identifier", dtype="int64")
    codes = k.Input((4,), name="codes", dtype="int64")
    out: dict[str, Any] = {}
    for mode in ("int", "one_hot", "multi_hot", "count", "tf_idf"):
        idf = {"idf_weights": [0.5, 1.0, 1.5, 2.0]} if mode == "tf_idf" else {}
        source = user if mode == "one_hot" else tags
        out[f"tags_{mode}"] = layers.StringLookup(vocabulary=TAGS, output_mode=mode, num_oov_indices=2, **idf)(source)
        source = identifier if mode == "one_hot" else codes
        out[f"codes_{mode}"] = layers.IntegerLookup(vocabulary=IDS, output_mode=mode, **idf)(source)
    out["codes_masked"] = layers.IntegerLookup(vocabulary=IDS, mask_token=0, num_oov_indices=3)(codes)
    out["masked"] = layers.StringLookup(vocabulary=TAGS, mask_token="", num_oov_indices=1)(tags)
    out["inverse"] = layers.StringLookup(vocabulary=TAGS, invert=True)(codes)
    out["hash"] = layers.Hashing(11)(tags)
    out["hash_salted"] = layers.Hashing(11, salt=[7, 9])(tags)
    out["hash_masked"] = layers.Hashing(11, mask_value="red")(tags)
    out["hash_numbers"] = layers.Hashing(11, salt=5)(codes)
    out["crossed"] = layers.HashedCrossing(13)((user, identifier))
    out["crossed_one_hot"] = layers.HashedCrossing(13, output_mode="one_hot")((user, identifier))
    out["buckets"] = layers.Discretization([-1.0, 0.0, 2.5])(number)
    out["buckets_one_hot"] = layers.Discretization([0.0, 2.5], output_mode="multi_hot")(number)
    inside = layers.Discretization([0.0, 1.0, 2.0, 5.0])(number)
    for mode in ("multi_hot", "count") if new else ("one_hot", "multi_hot", "count"):
        source = layers.Reshape((1,))(inside[:, :1]) if mode == "one_hot" else inside
        out[f"category_{mode}"] = layers.CategoryEncoding(5, output_mode=mode)(source)
    adapted = layers.Normalization(axis=-1, name="norm_adapted")
    adapted.adapt(np.random.default_rng(1).normal(3, 2, (50, 2)).astype(np.float32))
    out["normalized"] = adapted(number)
    embedded = layers.Embedding(8, 6, name="user_embedding")(layers.StringLookup(vocabulary=USERS)(user))
    embedded = layers.Flatten()(embedded)
    hashed = layers.GlobalAveragePooling1D()(layers.Embedding(11, 6, name="hash_embedding")(out["hash"]))
    wide = layers.Concatenate()([embedded, hashed, out["normalized"], out["tags_multi_hot"], out["codes_count"]])
    hidden = layers.Dropout(0.3)(layers.Dense(16, activation="relu", name="hidden")(wide))
    out["embedding"] = layers.UnitNormalization(axis=-1)(layers.Dense(8, name="projection")(hidden))
    model = k.Model([user, tags, number, identifier, codes], out)
    draw_weights(model)
    return model


@tf_keras.saving.register_keras_serializable("corpus")
@keras.saving.register_keras_serializable("corpus")
def own_standardize(text: Any) -> Any:
    """A user's own layers."""
    return tf.strings.regex_replace(tf.strings.strip(tf.strings.lower(text, encoding="utf-8")), r"[\d_]+", "#")


TEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fixed": {"output_sequence_length": 5},
    "lower": {"standardize": "lower"},
    "strip": {"standardize": "strip_punctuation"},
    "raw": {"standardize": None},
    "own": {"standardize": own_standardize},
    "characters": {"split": "character", "output_sequence_length": 9},
    "whole": {"split": None},
    "bigrams": {"ngrams": 2},
    "some_grams": {"ngrams": (1, 3)},
    "multi_hot": {"output_mode": "multi_hot"},
    "count": {"output_mode": "count", "ngrams": 2},
    "padded": {"output_mode": "multi_hot", "pad_to_max_tokens": True, "max_tokens": 40},
    "tf_idf": {"output_mode": "tf_idf"},
}


def texts(k: Any) -> Any:
    """TextVectorization in its modes; masks through embeddings and poolings."""
    layers = k.layers
    title = k.Input((1,), name="title", dtype="string")
    out: dict[str, Any] = {}
    for name, options in TEXTS.items():
        layer = layers.TextVectorization(**options)
        layer.adapt(tf.constant(TITLES))
        out[name] = layer(title)
    for name, mask in (("masked", True), ("unmasked", False)):
        embedded = layers.Embedding(40, 6, mask_zero=mask, name=f"embedding_{name}")(out["plain"])
        out[f"average_{name}"] = layers.GlobalAveragePooling1D()(embedded)
        out[f"max_{name}"] = layers.GlobalMaxPooling1D()(embedded)
    fixed = layers.Embedding(40, 4, name="embedding_fixed")(out["fixed"])
    out["flat"] = layers.Flatten()(fixed)
    joined = layers.Concatenate()(
        [out["average_masked"], out["max_unmasked"], out["flat"], layers.Flatten()(out["padded"])]
    )
    out["embedding"] = layers.Dense(8, name="projection")(joined)
    model = k.Model(title, out)
    draw_weights(model)
    return model


def numbers(k: Any) -> Any:
    """Layers of the encoder: merges, activations, norms, poolings."""
    layers = k.layers
    x, y = k.Input((8,), name="x"), k.Input((8,), name="y")
    steps = k.Input((5, 8), name="steps")
    ids = k.Input((5,), name="ids", dtype="int32")
    out: dict[str, Any] = {}
    for name in ("Add", "Multiply", "Subtract", "Average", "Maximum", "Minimum", "Concatenate"):
        out[name.lower()] = getattr(layers, name)()([x, y])
    out["dot"] = layers.Dot(axes=1)([x, y])
    out["cosine"] = layers.Dot(axes=-1, normalize=True)([x, y])
    out["dots"] = layers.Dot(axes=(2, 1))([steps, x])
    for activation in ACTIVATIONS:
        if activation == "leaky_relu" and k is tf_keras:
            out[activation] = layers.Dense(4, activation=tf.nn.leaky_relu, name=f"dense_{activation}")(x)
        else:
            out[activation] = layers.Dense(4, activation=activation, name=f"dense_{activation}")(x)
    out["leaky"] = layers.LeakyReLU(0.1)(x)
    out["relu_layer"] = layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.2)(x)
    out["batch_norm"] = layers.BatchNormalization(name="batch_norm")(x)
    out["layer_norm"] = layers.LayerNormalization(name="layer_norm")(y)
    out["group_norm"] = layers.GroupNormalization(2, name="group_norm")(steps)
    out["instance_norm"] = layers.GroupNormalization(-1, center=False, name="instance_norm")(steps)
    out["groups_of_features"] = layers.GroupNormalization(4, name="groups_of_features")(x)
    out["unit_norm"] = layers.UnitNormalization()(x)
    out["l2"] = layers.Lambda(lambda t: tf.math.l2_normalize(t, axis=1), name="l2")(y)
    out["l2_epsilon"] = layers.Lambda(lambda t: tf.nn.l2_normalize(t, -1, epsilon=1e-3), name="l2_epsilon")(y)
    out["scaled"] = layers.Rescaling(0.5, offset=-1.0)(x)
    out["reshaped"] = layers.Reshape((2, -1))(x)
    out["permuted"] = layers.Permute((2, 1))(steps)
    out["repeated"] = layers.RepeatVector(3)(x)
    table = layers.Embedding(9, 8, name="table")
    embedded = table(ids)
    out["embedded"], out["wrapped"] = embedded, layers.Lambda(lambda t: t * 2.0, name="doubled")(table(ids))
    out["mean"], out["max"] = layers.GlobalAveragePooling1D()(steps), layers.GlobalMaxPooling1D()(steps)
    out["attention"] = layers.Attention(name="attention")([steps, embedded])
    wide = layers.Dropout(0.5)(
        layers.Concatenate()([out["add"], out["batch_norm"], out["mean"], layers.Flatten()(embedded)])
    )
    out["embedding"] = layers.Dense(8, name="projection")(layers.GaussianNoise(0.1)(wide))
    model = k.Model([x, y, steps, ids], out)
    draw_weights(model)
    return model


def encoder(path: Path) -> None:
    """Twelve layers of attention in plain Keras 3 over words and their positions, under Keras's own names."""
    layers = keras.layers

    class Positions(layers.Layer):
        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=(32, 8), name="table")

        def call(self, x: Any) -> Any:
            return x + self.table[: keras.ops.shape(x)[1]]

    ids = keras.Input((None,), dtype="int32", name="ids")
    mask = keras.ops.not_equal(ids, 0)
    x = layers.LayerNormalization(epsilon=1e-12)(Positions()(layers.Embedding(60, 8)(ids)))
    for _ in range(12):
        attended = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask[:, None, :])
        x = layers.LayerNormalization(epsilon=1e-12)(x + layers.Dropout(0.1)(attended))
        inner = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-12)(x + inner)
    model = keras.Model(ids, layers.UnitNormalization()(layers.GlobalAveragePooling1D()(x, mask=mask)))
    rng = np.random.default_rng(5)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(float(weight.path.endswith("gamma")), 0.2, weight.shape).astype(np.float32))
    model.export(str(path), verbose=False)


def export(make: Callable[[Any], Any]) -> Writer:
    """Keras 3, `model.export`."""

    def write(path: Path) -> None:
        make(keras).export(str(path), verbose=False)

    write.__name__ = f"keras_3_{make.__name__}"
    return write


def save(make: Callable[[Any], Any]) -> Writer:
    """tf_keras, `model.save`: training functions and all."""

    def write(path: Path) -> None:
        make(tf_keras).save(str(path))

    write.__name__ = f"tf_keras_{make.__name__}"
    return write


def save_plain(make: Callable[[Any], Any]) -> Writer:
    """tf_keras, `tf.saved_model.save`."""

    def write(path: Path) -> None:
        tf.saved_model.save(make(tf_keras), str(path))

    write.__name__ = f"saved_{make.__name__}"
    return write
