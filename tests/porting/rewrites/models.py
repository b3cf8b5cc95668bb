"""SavedModels for the tests of rewrites: the output of Keras 3 and tf_keras, and near misses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.porting.rewrites import cells, convolutions, images, stepwise, transformers, unrolled
from tests.witness import tf

TOKENS = ["a", "b", "c", "d e", "é"]
NUMBERS = [11, 12, 15, -4, 70000]
WORDS = ["the", "cat", "sat", "on", "mat", "the cat"]

ACTIVATIONS = [
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "swish",
    "gelu",
    "exponential",
    "hard_sigmoid",
    "linear",
    "mish",
]
KERAS_3_ACTIVATIONS = ["leaky_relu", "hard_silu", "log_softmax", "celu", "log_sigmoid"]

KERAS_3_SHRINKS = [
    "hard_tanh", "tanh_shrink", "hard_shrink", "soft_shrink", "sparse_plus", "sparse_sigmoid", "squareplus",
]  # fmt: skip


def build(name: str, folder: Path) -> Path:
    """Writes the SavedModel called `name` ("keras tensors", "tf_keras lookups", "near_misses", ...) into `folder`."""
    path = folder / name.replace(" ", "_")
    kind, _, group = name.partition(" ")
    if not group:
        WRITERS[name](path)
    elif kind in KINDS:
        KINDS[kind](group, path)
    else:
        model = GROUPS[group](_producer(kind), kind == "keras")
        if kind == "keras":
            model.export(str(path), verbose=False)
        else:
            model.save(str(path))
    return path


def _producer(name: str) -> Any:
    if name == "keras":
        import keras

        return keras
    import tf_keras

    return tf_keras


def _tensors(keras: Any, is_3: bool) -> Any:
    """Layers of numbers."""
    layers = keras.layers
    x, s = keras.Input((8,), name="x"), keras.Input((5, 8), name="s")
    ids = keras.Input((4,), name="ids", dtype="int32")
    out: dict[str, Any] = {}
    h = layers.Dense(8, name="dense")(x)
    for activation in ACTIVATIONS + (KERAS_3_ACTIVATIONS if is_3 else []):
        out[f"act_{activation}"] = layers.Activation(activation, name=f"act_{activation}")(h)
    out["prelu"] = layers.PReLU(name="prelu")(h)
    out["elu_layer"] = layers.ELU(0.7, name="elu_layer")(h)
    out["gelu_tanh"] = layers.Lambda(lambda t: tf.nn.gelu(t, approximate=True), name="gelu_tanh")(h)
    out["nobias"] = layers.Dense(3, use_bias=False, name="nobias")(x)
    out["rank3"] = layers.Dense(6, activation="relu", name="rank3")(s)
    out["rank3_nobias"] = layers.Dense(6, use_bias=False, name="rank3_nobias")(s)
    embed = layers.Embedding(10, 6, name="embed")
    out["embed"], out["embed_again"] = embed(ids), embed(ids + 1)
    out["ln"] = layers.LayerNormalization(name="ln")(s)
    out["ln_scale"] = layers.LayerNormalization(name="ln_scale", center=False)(x)
    out["ln_shift"] = layers.LayerNormalization(name="ln_shift", scale=False, epsilon=1e-6)(x)
    out["ln_shift_3"] = layers.LayerNormalization(name="ln_shift_3", scale=False)(s)
    out["ln_2d"] = layers.LayerNormalization(name="ln_2d", axis=[1, 2])(s)
    out["bn"] = layers.BatchNormalization(name="bn")(x)
    out["bn_shift"] = layers.BatchNormalization(name="bn_shift", scale=False)(s)
    out["bn_scale"] = layers.BatchNormalization(name="bn_scale", center=False, epsilon=1e-5)(x)
    out["unit"] = layers.UnitNormalization(name="unit")(x)
    out["l2"] = layers.Lambda(lambda t: tf.math.l2_normalize(t, axis=-1), name="l2")(h)
    out["l2_axis"] = layers.Lambda(lambda t: tf.nn.l2_normalize(t, axis=1, epsilon=1e-6), name="l2_axis")(s)
    norm = layers.Normalization(name="norm", axis=-1)
    norm.adapt(np.random.default_rng(1).normal(3, 2, (100, 8)).astype(np.float32))
    out["norm"] = norm(x)
    out["norm_fixed"] = layers.Normalization(mean=3.0, variance=2.0, axis=None, name="norm_fixed")(x)
    out["discretization"] = layers.Discretization([0.0, 1.0, 2.5], name="discretization")(x)
    out["category_multi_hot"] = layers.CategoryEncoding(10, output_mode="multi_hot", name="category_multi_hot")(ids)
    out["category_count"] = layers.CategoryEncoding(10, output_mode="count", name="category_count")(ids)
    model = keras.Model({"x": x, "s": s, "ids": ids}, out)
    _draw_weights(model, keep=norm.weights)
    return model


def _draw_weights(model: Any, keep: Any) -> None:
    rng = np.random.default_rng(0)
    kept = {id(weight) for weight in keep}
    for weight in model.weights:
        if id(weight) in kept or "float" not in str(weight.dtype):
            continue
        value = rng.normal(0, 0.5, weight.shape).astype(np.float32)
        weight.assign(
            np.abs(value) + 0.1 if "variance" in (weight.path if hasattr(weight, "path") else weight.name) else value
        )


LOOKUPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "oov_3": {"num_oov_indices": 3},
    "masked": {"mask": True},
    "masked_oov_2": {"mask": True, "num_oov_indices": 2},
    "no_oov": {"num_oov_indices": 0},
    "multi_hot": {"output_mode": "multi_hot"},
    "count": {"output_mode": "count"},
    "tf_idf": {"output_mode": "tf_idf", "idf_weights": [0.1, 0.2, 0.3, 0.4, 0.5]},
    "one_hot": {"output_mode": "one_hot"},
}


def _lookups(keras: Any, is_3: bool) -> Any:
    """Lookups and hashing."""
    layers = keras.layers
    t, t3 = keras.Input((1,), name="t", dtype="string"), keras.Input((3,), name="t3", dtype="string")
    n, n3 = keras.Input((1,), name="n", dtype="int64"), keras.Input((3,), name="n3", dtype="int64")
    known, known_n = keras.Input((3,), name="known", dtype="string"), keras.Input((3,), name="known_n", dtype="int64")
    out: dict[str, Any] = {}
    for name, options in LOOKUPS.items():
        options = dict(options)
        masked = options.pop("mask", False)
        one = name == "one_hot"
        texts = {"mask_token": ""} if masked else {}
        numbers = {"mask_token": 0} if masked else {}
        string_input = known if name == "no_oov" else t if one else t3
        number_input = known_n if name == "no_oov" else n if one else n3
        out[f"string_{name}"] = layers.StringLookup(vocabulary=TOKENS, name=f"string_{name}", **options, **texts)(
            string_input
        )
        out[f"integer_{name}"] = layers.IntegerLookup(vocabulary=NUMBERS, name=f"integer_{name}", **options, **numbers)(
            number_input
        )
    out["inverse"] = layers.StringLookup(vocabulary=TOKENS, invert=True, name="inverse")(n3)
    for name, options in {"plain": {}, "salt": {"salt": 133}, "salts": {"salt": [133, 137]}}.items():
        out[f"hash_{name}"] = layers.Hashing(7, name=f"hash_{name}", **options)(t3)
        out[f"hash_integer_{name}"] = layers.Hashing(7, name=f"hash_integer_{name}", **options)(n3)
    out["hash_masked"] = layers.Hashing(7, mask_value="", name="hash_masked")(t3)
    out["hash_integer_masked"] = layers.Hashing(7, mask_value=0, name="hash_integer_masked")(n3)
    out["hash_multi_hot"] = layers.Hashing(7, output_mode="multi_hot", name="hash_multi_hot")(t3)
    return keras.Model({"t": t, "t3": t3, "n": n, "n3": n3, "known": known, "known_n": known_n}, out)


TEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "four": {"output_sequence_length": 4},
    "bigrams": {"ngrams": 2},
    "trigrams": {"ngrams": (1, 3)},
    "multi_hot": {"output_mode": "multi_hot"},
    "padded_multi_hot": {"output_mode": "multi_hot", "pad_to_max_tokens": True, "max_tokens": 20},
    "count": {"output_mode": "count"},
    "bigram_count": {"output_mode": "count", "ngrams": 2},
    "tf_idf": {"output_mode": "tf_idf", "idf_weights": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
    "raw": {"standardize": None},
    "lower": {"standardize": "lower"},
    "punctuation": {"standardize": "strip_punctuation"},
    "characters": {"split": "character"},
    "whole": {"split": None},
}


def _texts(keras: Any, is_3: bool) -> Any:
    """TextVectorization in each of its modes."""
    t = keras.Input((1,), name="t", dtype="string")
    out = {
        name: keras.layers.TextVectorization(vocabulary=WORDS, name=name, **options)(t)
        for name, options in TEXTS.items()
    }
    return keras.Model({"t": t}, out)


def _towers(keras: Any, is_3: bool) -> Any:
    """Lookups before embeddings, and one TextVectorization that is called twice."""
    layers = keras.layers
    t, t2 = keras.Input((1,), name="t", dtype="string"), keras.Input((1,), name="t2", dtype="string")
    ids = keras.Input((1,), name="ids", dtype="int32")
    words = layers.TextVectorization(vocabulary=WORDS, output_sequence_length=6, name="words")
    embed = layers.Embedding(8, 4, name="embed")
    lookup = layers.StringLookup(vocabulary=WORDS, num_oov_indices=2, name="lookup")
    out = {
        "first": embed(words(t)),
        "second": embed(words(t2)),
        "looked_up": embed(lookup(t)),
        "hashed": embed(layers.Hashing(8, name="hashed")(t)),
        "given": layers.Embedding(10, 4, name="given")(ids),
    }
    return keras.Model({"t": t, "t2": t2, "ids": ids}, out)


EINSUMS: dict[str, dict[str, Any]] = {
    "heads": {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"},
    "flat": {"equation": "abc,cd->abd", "output_shape": (None, 8), "bias_axes": "d"},
    "no_bias": {"equation": "abc,cde->abde", "output_shape": (None, 2, 3)},
    "open": {"equation": "...x,xy->...y", "output_shape": 6, "bias_axes": "y"},
    "over_places": {"equation": "abc,bd->adc", "output_shape": (3, 16)},
    "turned": {"equation": "abc,dec->abed", "output_shape": (None, 3, 2)},
    "head_bias": {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "e"},
    "per_place": {"equation": "abc,bcd->abd", "output_shape": (7, 4), "bias_axes": "d"},
    "per_place_and_bias": {"equation": "abc,bcd->abd", "output_shape": (7, 4), "bias_axes": "bd"},
    "per_channel": {"equation": "abc,cd->adc", "output_shape": (3, 16)},
    "place_bias": {"equation": "abc,cde->abde", "output_shape": (7, 2, 3), "bias_axes": "be"},
    "turned_bias": {"equation": "abc,dec->abed", "output_shape": (None, 3, 2), "bias_axes": "ed"},
    "open_places": {"equation": "...bx,bxy->...by", "output_shape": (7, 6), "bias_axes": "y"},
}


def _einsums(keras: Any, is_3: bool) -> Any:
    """Projections by einsum, over known and unknown sizes, and the projections of attention."""
    layers = keras.layers
    dense = layers.EinsumDense if is_3 else layers.experimental.EinsumDense
    s, free = keras.Input((7, 16), name="s"), keras.Input((None, 16), name="free")
    out = {name: dense(name=name, **options)(s) for name, options in EINSUMS.items()}
    out["free_heads"] = dense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de", name="free_heads")(free)
    joined = dense("abcd,cde->abe", output_shape=(None, 5), bias_axes="e", name="joined")
    out["joined"] = joined(out["free_heads"])
    twice = dense("abc,cde->abde", output_shape=(None, 4, 2), bias_axes="de", name="twice")
    out["twice"], out["twice_again"] = twice(free), twice(free * 2.0)
    at_both = dense("abc,cde->abde", output_shape=(None, 2, 5), bias_axes="de", name="at_both")
    out["at_both"], out["at_both_open"] = at_both(s), at_both(free)
    out["joined_fixed"] = joined(out["heads"])
    model = keras.Model({"s": s, "free": free}, out)
    _draw_weights(model, keep=())
    return model


def _positions(keras: Any) -> Any:
    """A layer of its own that adds a vector for each place, as tutorials have it."""

    class Positions(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.table = self.add_weight(name="table", shape=(12, 16))
            super().build(shape)

        def call(self, x: Any) -> Any:
            return x + self.table[: tf.shape(x)[1]]

        def compute_mask(self, x: Any, mask: Any = None) -> Any:
            return mask

    return Positions(name="positions")


def _attentions(keras: Any, is_3: bool) -> Any:
    """Attention of Keras: within a masked text, across two sequences, causal, without projections."""
    layers = keras.layers
    ids, s, v = (
        keras.Input((None,), name="ids", dtype="int32"),
        keras.Input((7, 16), name="s"),
        keras.Input((5, 16), name="v"),
    )
    mask = keras.Input((7, 5), name="mask", dtype="bool")
    x = _positions(keras)(layers.Embedding(30, 16, mask_zero=True, name="words")(ids))
    for block in range(2):
        inner = layers.MultiHeadAttention(4, 6, name=f"attention_{block}")(x, x)
        x = layers.LayerNormalization(name=f"norm_{block}")(layers.Add(name=f"add_{block}")([x, inner]))
    out = {"pooled": layers.GlobalAveragePooling1D(name="pooled")(x), "text": x}
    across = layers.MultiHeadAttention(2, 8, value_dim=6, output_shape=10, name="across")
    out["across"] = across(s, v, attention_mask=mask)
    causal = layers.MultiHeadAttention(2, 8, use_bias=False, name="causal")
    out["causal"] = causal(s, s, use_causal_mask=True)
    twice = layers.MultiHeadAttention(2, 4, name="twice")
    out["twice"], out["twice_again"] = twice(s, v), twice(v, s)
    scored = layers.MultiHeadAttention(2, 4, name="scored")(s, v, return_attention_scores=True)
    out["scored"], out["scores"] = scored
    out["dot"] = layers.Attention(name="dot")([s, v])
    model = keras.Model({"ids": ids, "s": s, "v": v, "mask": mask}, out)
    _draw_weights(model, keep=())
    return model


def _plain_attentions(keras: Any, is_3: bool) -> Any:
    """Attention without projections, but with weights: over all places, under a mask, causal, and called twice."""
    layers = keras.layers
    s, v, ids = (
        keras.Input((7, 6), name="s"),
        keras.Input((5, 6), name="v"),
        keras.Input((None,), name="ids", dtype="int32"),
    )
    embedded = layers.Embedding(20, 6, mask_zero=True, name="embed")(ids)
    out: dict[str, Any] = {}
    for name, options in {"scaled": {"use_scale": True}, "concat": {"score_mode": "concat"},
                          "concat_scaled": {"score_mode": "concat", "use_scale": True}}.items():  # fmt: skip
        out[name] = layers.Attention(name=name, **options)([s, v])
        out[f"{name}_masked"] = layers.Attention(name=f"{name}_masked", **options)([embedded, embedded])
    out["additive"] = layers.AdditiveAttention(name="additive")([s, v, v])
    out["additive_masked"] = layers.AdditiveAttention(name="additive_masked")([embedded, embedded])
    out["unscaled"] = layers.AdditiveAttention(use_scale=False, name="unscaled")([s, v])
    out["unscaled_masked"] = layers.AdditiveAttention(use_scale=False, name="unscaled_masked")([embedded, embedded])
    causal = layers.Attention(use_scale=True, name="causal")
    out["causal"] = causal([s, s], use_causal_mask=True)
    twice = layers.AdditiveAttention(name="twice")
    out["twice"] = layers.Add(name="sum")([twice([s, v]), twice([s, -v])])
    model = keras.Model({"s": s, "v": v, "ids": ids}, out)
    _draw_weights(model, keep=())
    return model


def _group_norms(keras: Any, is_3: bool) -> Any:
    """Groups of channels of images, sequences and vectors; of all channels, of one; scale and shift left out."""
    layers = keras.layers
    shapes = {"x": (None, None, 6), "f": (4, 5, 6), "s": (None, 8), "v": (8,), "first": (6, 4, 3), "clip": (3, 4, 2, 4)}
    x, f, s, v, first, clip = (keras.Input(shape, name=name) for name, shape in shapes.items())
    norm = layers.GroupNormalization
    out: dict[str, Any] = {
        "free": norm(3, name="free")(x),
        "block": norm(2, name="behind", epsilon=1e-5)(layers.Conv2D(8, 2, name="conv")(x)),
        "sequence": norm(2, name="sequence")(s),
        "vector": norm(4, name="vector")(v),
        "volume": norm(2, name="volume")(clip),
        "channels_first": norm(3, axis=1, name="channels_first")(first),
        "instance": norm(-1, name="instance")(f),
        "single": norm(1, name="single")(f),
        "no_shift": norm(2, center=False, name="no_shift")(f),
        "no_scale": norm(2, scale=False, name="no_scale")(f),
        "bare": norm(2, scale=False, center=False, name="bare")(f),
    }
    twice = norm(4, name="twice")
    out["once"], out["again"] = twice(s), twice(-s)
    model = keras.Model({"x": x, "f": f, "s": s, "v": v, "first": first, "clip": clip}, out)
    _draw_weights(model, keep=[])
    return model


def _half_norms(keras: Any, is_3: bool) -> Any:
    """Groups of halves, which Keras 3 normalizes in float32: squares of 300 are too large for float16."""
    x = keras.Input((None, None, 6), dtype="float16", name="x")
    norm = keras.layers.GroupNormalization(3, dtype="mixed_float16", name="half")
    model = keras.Model({"x": x}, {"half": norm(x)})
    _draw_weights(model, keep=[])
    return model


def _sequences(keras: Any, is_3: bool) -> Any:
    """Recurrent layers of every kind, over all steps (`s`) and under a mask (`ids` of 0)."""
    layers = keras.layers
    s, ids = keras.Input((None, 8), name="s"), keras.Input((None,), name="ids", dtype="int32")
    embedded = layers.Embedding(20, 8, mask_zero=True, name="embed")(ids)
    out: dict[str, Any] = {}
    out["gru"] = layers.GRU(5, name="gru")(s)
    out["gru_masked"] = layers.GRU(5, name="gru_masked")(embedded)
    out["gru_reset_before"] = layers.GRU(5, reset_after=False, name="gru_reset_before")(s)
    back = layers.GRU(5, go_backwards=True, return_sequences=True, use_bias=False, name="gru_back")
    out["gru_back"] = back(s)
    sequence, h, c = layers.LSTM(5, return_sequences=True, return_state=True, name="lstm_state")(s)
    out["lstm_state"] = sequence
    out["lstm_from"] = layers.LSTM(5, name="lstm_from")(s, initial_state=[h, c])
    out["rnn"] = layers.SimpleRNN(5, name="rnn")(s)
    ways = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="ways")(embedded)
    out["ways"] = ways * 1.5
    out["stacked"] = layers.SimpleRNN(3, name="stacked")(ways)
    sequence, h, c = layers.LSTM(5, return_sequences=True, return_state=True, name="first")(s)
    out["second"] = layers.LSTM(5, name="second")(sequence, initial_state=[h, c])
    out["gru_relu"] = layers.GRU(5, activation="relu", name="gru_relu")(s * 0.1)
    out["gru_hard"] = layers.GRU(5, recurrent_activation="hard_sigmoid", reset_after=False, name="gru_hard")(s)
    hard = {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}
    out["lstm_hard"] = layers.LSTM(5, **hard, name="lstm_hard")(embedded)
    out["rnn_linear"] = layers.SimpleRNN(5, activation="linear", name="rnn_linear")(s * 0.1)
    for kind in ("GRU", "LSTM"):
        name = f"{kind.lower()}_dropout"
        out[name] = getattr(layers, kind)(5, dropout=0.2, recurrent_dropout=0.1, name=name)(s)
    start, h, c = layers.LSTM(5, return_state=True, name="lstm_start")(ways)
    out["gru_masked_from"] = layers.GRU(5, name="gru_masked_from")(embedded, initial_state=start)
    cell = layers.LSTM(5, return_sequences=True, return_state=True, name="lstm_cell_state")
    out["lstm_cell_state"] = cell(embedded, initial_state=[h, c])[2]
    out["rnn_state"] = layers.SimpleRNN(5, return_state=True, name="rnn_state")(embedded, initial_state=[start])[1]
    # Near misses of these layers.
    out["other_activation"] = layers.GRU(5, activation=tf.sin, name="other_activation")(s)
    cell = layers.GRUCell(5, name="cell")
    out["forth"] = layers.RNN(cell, name="forth")(s)
    out["back"] = layers.RNN(cell, go_backwards=True, name="back")(s)
    model = keras.Model({"s": s, "ids": ids}, out)
    _draw_weights(model, keep=[])
    return model


def _activated_sequences(keras: Any, is_3: bool) -> Any:
    """A recurrent layer with each activation of Keras, and one whose gates have another than usual."""
    layers, s = keras.layers, keras.Input((3, 4), name="s")
    names = [*ACTIVATIONS, "softmax", *(KERAS_3_ACTIVATIONS + KERAS_3_SHRINKS if is_3 else [])]
    small = s * 0.1  # three steps of an exponential are not to overflow
    out = {
        name: layers.SimpleRNN(3, activation=name, name=name)(small if name == "exponential" else s) for name in names
    }
    out["gelu_tanh"] = layers.SimpleRNN(3, activation=lambda t: tf.nn.gelu(t, approximate=True), name="gelu_tanh")(s)
    out["lstm_mish"] = layers.LSTM(3, activation="mish", recurrent_activation="softmax", name="lstm_mish")(s)
    out["gru_gelu"] = layers.GRU(3, activation="gelu", recurrent_activation="exponential", name="gru_gelu")(small)
    model = keras.Model({"s": s}, out)
    _draw_weights(model, keep=[])
    return model


def _shared_sequences(keras: Any, is_3: bool) -> Any:
    """Recurrent layers that are called several times: on two inputs, under a mask and without one, on what they give, for all
    steps of a sequence of sequences."""
    layers = keras.layers
    s, words = keras.Input((None, 6), name="s"), keras.Input((2, 4), name="words", dtype="int32")
    ids = keras.Input((None,), name="ids", dtype="int32")
    embed = layers.Embedding(20, 6, mask_zero=True, name="embed")
    embedded, history = embed(ids), embed(words)
    out: dict[str, Any] = {}
    twice, masked = layers.SimpleRNN(5, name="twice"), layers.GRU(5, reset_after=False, name="masked")
    out["once"], out["twice"] = twice(s), twice(-s)
    out["masked"], out["unmasked"] = masked(embedded), masked(s)
    again = layers.LSTM(6, return_sequences=True, name="again")
    out["again"] = again(again(s))
    cells = [layers.GRUCell(4, name="gru_cell"), layers.LSTMCell(3, name="lstm_cell")]
    stacked = layers.RNN(layers.StackedRNNCells(cells, name="cells"), name="stacked")
    out["stacked"], out["stacked_masked"] = stacked(s), stacked(embedded)

    def each(layer: Any, name: str) -> Any:
        return layers.TimeDistributed(layer, name=name)(history)

    out["each"] = each(layers.GRU(5, name="gru"), "each")
    out["each_all"] = each(layers.LSTM(5, return_sequences=True, go_backwards=True, name="lstm"), "each_all")
    out["each_way"] = each(layers.Bidirectional(layers.GRU(3), name="both"), "each_way")
    out["history"] = layers.GRU(7, name="outer")(out["each"] * 1.0)
    model = keras.Model({"s": s, "ids": ids, "words": words}, out)
    _draw_weights(model, keep=[])
    return model


def _image_sequences(keras: Any, is_3: bool) -> Any:
    """ConvLSTM over lines, images and volumes: strides, directions, states."""
    layers = keras.layers
    s, x = keras.Input((None, 8, 3), name="s"), keras.Input((None, 6, 7, 3), name="x")
    v, on = keras.Input((2, 4, 5, 3, 2), name="v"), keras.Input((None,), dtype="bool", name="on")
    out: dict[str, Any] = {}
    frames = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True, name="frames")(x)
    out["frames"] = frames
    out["last"] = layers.ConvLSTM2D(5, 3, use_bias=False, name="last")(frames)
    hard = {"activation": "relu", "recurrent_activation": "hard_sigmoid"}
    out["strided"] = layers.ConvLSTM2D(4, (3, 2), strides=2, padding="same", **hard, name="strided")(x * 0.1)
    line, h, c = layers.ConvLSTM1D(4, 3, go_backwards=True, return_state=True, name="line")(s)
    out["line"] = line
    out["line_from"] = layers.ConvLSTM1D(4, 2, strides=2, padding="same", name="started")(
        s, initial_state=[h[:, :4], c[:, :4]]
    )
    out["line_cell"] = c * 1.0
    out["volume"] = layers.ConvLSTM3D(3, 2, name="volume")(v)
    # Near misses of these layers.
    out["masked"] = layers.ConvLSTM2D(4, 3, name="masked")(x, mask=on)
    out["dilated"] = layers.ConvLSTM2D(4, (2, 3), dilation_rate=2, name="dilated")(x)
    model = keras.Model({"s": s, "x": x, "v": v, "on": on}, out)
    _draw_weights(model, keep=[])
    return model


GROUPS: dict[str, Callable[[Any, bool], Any]] = {
    "tensors": _tensors,
    "lookups": _lookups,
    "texts": _texts,
    "towers": _towers,
    "einsums": _einsums,
    "attentions": _attentions,
    "plain_attentions": _plain_attentions,
    "convolutions": convolutions.layers_of,
    "images": images.layers_of,
    "group_norms": _group_norms,
    "half_norms": _half_norms,
    "sequences": _sequences,
    "shared_sequences": _shared_sequences,
    "activated_sequences": _activated_sequences,
    "image_sequences": _image_sequences,
}


def _interactions(path: Path) -> None:
    """Cross and DotInteraction of TensorFlow Recommenders, with every option."""
    import tensorflow_recommenders as tfrs
    import tf_keras

    cross = {"full": {}, "low": {"projection_dim": 4}, "scaled": {"diag_scale": 0.5}, "active": {"preactivation": "relu"},
             "bare": {"use_bias": False}, "low_scaled": {"projection_dim": 3, "diag_scale": 0.1}}  # fmt: skip
    dots = {"pairs": {}, "selves": {"self_interaction": True}, "matrix": {"skip_gather": True},
            "matrix_selves": {"skip_gather": True, "self_interaction": True}}  # fmt: skip
    x, ids = tf_keras.Input((8,), name="x"), tf_keras.Input((3,), name="ids", dtype="int32")
    out = {name: tfrs.layers.dcn.Cross(name=name, **options)(x) for name, options in cross.items()}
    out["second"] = tfrs.layers.dcn.Cross(name="second")(x, out["full"])
    embedded = tf_keras.layers.Embedding(10, 8, name="embed")(ids)
    bottom = tf_keras.layers.Dense(8, name="bottom")(x)
    for place, (name, options) in enumerate(dots.items()):
        features = [bottom * (place + 1.0), *tf.unstack(embedded, axis=1)]
        out[name] = tfrs.layers.feature_interaction.DotInteraction(name=name, **options)(features)
    top = tf_keras.layers.Dense(4, name="top")(tf.concat([bottom, out["pairs"]], 1))
    out["unit"] = tf_keras.layers.UnitNormalization(name="unit")(top)
    model = tf_keras.Model({"x": x, "ids": ids}, out)
    _draw_weights(model, keep=[])
    model.save(str(path))


def _near_misses(path: Path) -> None:
    """Near misses of layers, one per output."""
    rng = np.random.default_rng(2)

    def weight(name: str, *shape: int) -> Any:
        return tf.Variable(rng.normal(0, 0.5, shape).astype(np.float32), name=name)

    class Almost(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two_biases, self.bias_a, self.bias_b = (
                weight("two_biases", 8, 8),
                weight("bias_a", 8),
                weight("bias_b", 8),
            )
            self.tied, self.open, self.open_bias = weight("tied", 8, 8), weight("open", 8, 8), weight("open_bias", 8)
            self.wide, self.scalar_bias = weight("wide", 8, 4), weight("scalar_bias", 1)
            self.mixed, self.square = weight("mixed", 8, 2, 8), weight("square", 8, 8)
            self.rows, self.places = weight("rows", 5, 3), weight("places", 5, 1)
            self.wq, self.wo = weight("block_0/wq", 8, 3), weight("block_0/wo", 8, 3)
            self.gamma, self.beta = weight("gamma", 8), weight("beta", 8)
            self.table, self.shared, self.shared_bias = (
                weight("table", 8, 8),
                weight("shared", 8, 4),
                weight("shared_bias", 4),
            )
            entries = tf.lookup.KeyValueTensorInitializer(tf.constant(["x", "y"]), tf.constant([5, 3], tf.int64))
            self.gaps = tf.lookup.StaticHashTable(entries, -1)
            counting = tf.lookup.KeyValueTensorInitializer(tf.constant(["x", "y"]), tf.constant([1, 2], tf.int64))
            self.words = tf.lookup.StaticHashTable(counting, 0)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 8], tf.float32, "x"),
                tf.TensorSpec([None, 5, 8], tf.float32, "s"),
                tf.TensorSpec([None, 3], tf.int64, "ids"),
                tf.TensorSpec([None], tf.string, "t"),
            ]
        )
        def __call__(self, x: Any, s: Any, ids: Any, t: Any) -> dict[str, Any]:
            out: dict[str, Any] = {}
            out["bias_a"] = tf.matmul(x, self.two_biases) + self.bias_a
            out["bias_b"] = tf.matmul(x * 2.0, self.two_biases) + self.bias_b
            out["tied"] = tf.matmul(tf.matmul(x, self.tied), self.tied, transpose_b=True)
            out["open_matmul"] = tf.matmul(x, self.open)
            out["open"] = out["open_matmul"] + self.open_bias
            out["scalar_bias"] = tf.matmul(x, self.wide) + self.scalar_bias
            out["table"] = tf.gather(self.table, ids)
            out["logits"] = tf.matmul(x, self.table, transpose_b=True)
            out["shared_a"] = tf.matmul(x, self.shared) + self.shared_bias
            out["shared_b"] = tf.matmul(x + 1.0, self.shared) + self.shared_bias
            mean, variance = tf.nn.moments(s, axes=[0, 1], keepdims=True)
            out["other_axis"] = tf.nn.batch_normalization(s, mean, variance, self.beta, self.gamma, 1e-3)
            mean, variance = tf.nn.moments(s, axes=[-1], keepdims=True)
            out["norm"] = tf.nn.batch_normalization(s, mean, variance, self.beta, self.gamma, 1e-3)
            other = tf.nn.moments(s * s, axes=[-1], keepdims=True)[1]
            out["other_variance"] = (s - mean) * tf.math.rsqrt(other + 1e-3) * self.gamma + self.beta
            squares = tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)
            out["other_length"] = (x + 1.0) * tf.math.rsqrt(tf.maximum(squares, 1e-12))
            out["not_gelu"] = 0.5 * x * (1.0 + tf.tanh(0.8 * (x + 0.044715 * tf.pow(x, 3.0))))
            out["not_swish"] = x * tf.sigmoid(x + 1.0)
            out["mixed"] = tf.einsum("abc,cde->abde", s, self.mixed)
            out["mixed_again"] = tf.einsum("abc,edc->abde", s, self.mixed)
            out["diagonal"] = tf.einsum("ac,cc->ac", x, self.square)
            out["of_values"] = tf.einsum("abc,adc->abd", s, s)
            scores = tf.matmul(s, s, transpose_b=True)
            allowed = tf.matmul(s, 3.0 * s, transpose_b=True) > 0.0
            out["soft_mask"] = tf.matmul(tf.nn.softmax(tf.where(allowed, scores, -5.0)), s)
            out["wide_bias"] = tf.matmul(
                tf.nn.softmax(tf.matmul(s, 2.0 * s, transpose_b=True) + tf.ones([2, 1, 1, 5])), s
            )
            out["rms_middle"] = s * tf.math.rsqrt(tf.reduce_mean(s * s, 1, keepdims=True) + 1e-6) * self.gamma
            out["rms_other"] = s * tf.math.rsqrt(tf.reduce_mean(tf.square(s + 1.0), -1, keepdims=True) + 1e-6)
            first, second = tf.split(s, 2, -1)
            out["not_rotated"] = s * tf.cos(self.gamma) + tf.concat([-first, second], -1) * tf.sin(self.gamma)
            out["no_positions"] = s + self.places
            out["wq"], out["wo"] = tf.matmul(x, self.wq), tf.matmul(x, self.wo)
            out["last_rows"] = tf.reduce_sum(self.rows[: tf.shape(x)[0] - 2], 0)
            out["gaps"] = self.gaps.lookup(t)
            words = self.words.lookup(tf.strings.split(t, maxsplit=2).flat_values)
            out["cut_rows"] = tf.RaggedTensor.from_row_splits(
                words, tf.strings.split(t, maxsplit=2).row_splits
            ).to_tensor()
            other_rows = tf.strings.split(tf.strings.lower(t)).row_splits
            mixed = tf.strings.split(t)
            out["other_rows"] = tf.RaggedTensor.from_row_splits(
                self.words.lookup(mixed.flat_values), other_rows
            ).to_tensor()
            return out

    module = Almost()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.__call__})


WRITERS: dict[str, Callable[[Path], Any]] = {
    "near_misses": _near_misses,
    "near_convolutions": convolutions.near_misses,
    "interactions": _interactions,
    "shortcuts": unrolled.write_shortcuts,
    "stepwise": stepwise.write,
    "cells": cells.write,
}
KINDS: dict[str, Callable[[str, Path], Any]] = {"transformer": transformers.write, "unrolled": unrolled.write}
