"""Towers over a history of items: recurrent layers and attention of Keras 3 and tf_keras, and of TensorFlow 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.producers.keras_towers import draw_weights, export, save_plain
from tests.witness import tf

v1 = tf.compat.v1


def history(k: Any) -> Any:
    """A history of ids of any length, of which 0 is none, and what is known of each item."""
    layers = k.layers
    ids = k.Input((None,), name="ids", dtype="int32")
    known = k.Input((4, 6), name="known")
    x = layers.Embedding(20, 8, mask_zero=True, name="items")(ids)
    out: dict[str, Any] = {}
    ways = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="mul", name="ways")(x)
    out["last"] = layers.LSTM(5, recurrent_activation="hard_sigmoid", name="last")(ways)
    _, h, c = layers.LSTM(5, return_state=True, dropout=0.1, name="encoder")(x)
    out["decoded"] = layers.LSTM(5, name="decoder")(x, initial_state=[h, c])
    asked = layers.Attention(use_scale=True, name="attention")([x, x])
    out["attended"] = layers.GRU(5, activation="relu", reset_after=False, name="reader")(asked)
    added = layers.AdditiveAttention(name="additive")([known, known])
    out["known"] = layers.SimpleRNN(5, activation="softsign", go_backwards=True, name="backwards")(added)
    out["embedding"] = layers.Dense(4, name="projection")(layers.Concatenate(name="all")(list(out.values())))
    model = k.Model([ids, known], out)
    draw_weights(model)
    return model


def cells(path: Path) -> None:
    """TensorFlow 1: both directions of a history with its lengths, by `simple_save`."""
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x, lengths = v1.placeholder(tf.float32, [None, None, 6], "x"), v1.placeholder(tf.int32, [None], "lengths")
        kinds = v1.nn.rnn_cell.GRUCell(4), v1.nn.rnn_cell.BasicLSTMCell(5)
        both, states = v1.nn.bidirectional_dynamic_rnn(*kinds, x, lengths, dtype=tf.float32)
        session.run(v1.global_variables_initializer())
        rng = np.random.default_rng(5)
        for variable in v1.trainable_variables():
            variable.load(np.asarray(rng.normal(0, 0.4, variable.shape), np.float32), session)
        out = {"last": tf.concat([states[0], states[1].h], -1), "all": tf.concat(both, -1)}
        v1.saved_model.simple_save(session, str(path), {"x": x, "lengths": lengths}, out)


WRITERS = {"keras": export(history), "tf_keras": save_plain(history), "tensorflow_1": cells}
