"""Recurrent layers that are no loop of one cell: `unroll=True` and several cells in a layer of Keras 2 and Keras 3, `static_rnn` of TensorFlow 1, cells by hand."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.porting.rewrites.cells import CELLS
from tests.witness import tf

v1 = tf.compat.v1


def write(producer: str, path: Path) -> None:
    """`s [n, 3, 6]` and `ids [n, 3]` in, of which 0 is masked; one output for each layer."""
    if producer == "tensorflow_1":
        _static(path)
        return
    keras = importlib.import_module(producer)
    model, by_hand = _layers(keras), _by_hand(keras)

    def run(s: Any, ids: Any) -> dict[str, Any]:
        return {**model([s, ids]), **by_hand(s)}

    owner = tf.Module()
    specs = tf.TensorSpec([None, 3, 6], name="s"), tf.TensorSpec([None, 3], tf.int32, name="ids")
    function = tf.function(run).get_concrete_function(*specs)
    rng = np.random.default_rng(3)
    for variable in function.variables:
        if "seed" not in variable.name:
            variable.assign(rng.normal(0, 0.5, variable.shape).astype(np.float32))
    owner.variables_of_all = list(function.variables)
    tf.saved_model.save(owner, str(path), signatures=function)


def _layers(keras: Any) -> Any:
    layers = keras.layers
    s, ids = keras.Input((3, 6), name="s"), keras.Input((3,), name="ids", dtype="int32")
    embedded = layers.Embedding(20, 6, mask_zero=True, name="embed")(ids)

    def layer(kind: str, name: str, units: int = 5, **options: Any) -> Any:
        return getattr(layers, kind)(units, unroll=True, name=name, **options)

    out: dict[str, Any] = {}
    out["gru"] = layer("GRU", "gru")(s)
    out["gru_before"] = layer("GRU", "gru_before", reset_after=False, return_sequences=True)(s)
    out["gru_back"] = layer("GRU", "gru_back", go_backwards=True, use_bias=False, dropout=0.1)(s)
    out["gru_masked"] = layer("GRU", "gru_masked")(embedded)
    sequence, h, c = layer("LSTM", "lstm", return_sequences=True, return_state=True)(s)
    out["lstm"], out["lstm_cell_state"] = sequence, c
    out["lstm_from"] = layer("LSTM", "lstm_from")(s, initial_state=[h, c])
    out["lstm_masked"] = layer("LSTM", "lstm_masked", return_sequences=True, recurrent_activation="hard_sigmoid")(
        embedded
    )
    _, h, c = layer("LSTM", "start", return_state=True)(embedded)
    masked_from = layer("LSTM", "lstm_masked_from", return_sequences=True, return_state=True)
    out["lstm_masked_from"], out["lstm_masked_state"], _ = masked_from(embedded, initial_state=[h, c])
    out["rnn"] = layer("SimpleRNN", "rnn", activation="softsign")(s)
    ways = layers.Bidirectional(layer("GRU", "both", 3, return_sequences=True), name="ways")
    out["ways"] = ways(embedded) * 1.5
    out["stacked"] = layer("SimpleRNN", "stacked", 4)(sequence)

    def cells(*kinds: str) -> Any:
        each = [getattr(layers, f"{kind}Cell")(3 + i, name=f"{kind.lower()}_cell") for i, kind in enumerate(kinds)]
        return layers.StackedRNNCells(each, name="cells")

    out["pair"] = layers.RNN(cells("GRU", "LSTM"), return_sequences=True, name="pair")(s)
    masked = layers.RNN(cells("LSTM", "SimpleRNN", "GRU"), go_backwards=True, return_state=True, name="pair_masked")
    out["pair_masked"], first, second, _ = masked(embedded)
    out["pair_states"] = layers.Concatenate(name="states")([*first, second])
    out["pair_unrolled"] = layers.RNN(cells("GRU", "LSTM"), unroll=True, name="pair_unrolled")(s)
    return keras.Model([s, ids], out)


def _by_hand(keras: Any) -> Any:
    """Cells by hand, without a layer; and near misses, which no layer over a sequence is."""
    cells = {name: keras.layers.GRUCell(6, name=name) for name in ("items", "first", "second", "fed", "inner", "sine")}
    cells["sine"].activation = tf.sin
    dense = keras.layers.Dense(6, name="between")

    def steps(name: str, xs: Any, start: Any) -> list[Any]:
        found = [start]
        for x in xs:
            found.append(cells[name](x, found[-1])[0])
        return found[1:]

    def run(s: Any) -> dict[str, Any]:
        zero, xs = tf.zeros_like(s[:, 0]), [s[:, step] for step in range(3)]
        out: dict[str, Any] = {}
        items = steps("items", xs, zero)
        out["items"] = items[1] * 2.0 + items[2]
        first = steps("first", xs[:2], zero)  # not all steps
        out["second"] = tf.stack(steps("second", [dense(h) for h in first], zero)[::-1], 1)
        fed, h = [xs[0]], zero
        for _ in range(2):  # each step takes the one before
            h = cells["fed"](fed[-1], h)[0]
            fed.append(tf.sin(h))
        out["fed"] = fed[-1]
        h = zero
        for x in xs:  # what a step is made of is used
            h = cells["inner"](x, h)[0]
        out["inner"] = h + tf.matmul(xs[0], cells["inner"].kernel)[:, :6]
        out["sine"] = steps("sine", xs, zero)[-1]
        return out

    return run


def _static(path: Path) -> None:
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        s = v1.placeholder(tf.float32, [None, 3, 6], "s")
        lengths = v1.placeholder(tf.int32, [None], "lengths")
        xs, out = tf.unstack(s, axis=1), dict[str, Any]()
        with v1.variable_scope("fixed"):  # a loop over a fixed length
            out["fixed"], _ = v1.nn.dynamic_rnn(CELLS["lstm"](), s, lengths, dtype=tf.float32)
        for name in ("gru", "lstm", "rnn"):
            with v1.variable_scope(name):
                outputs, state = v1.nn.static_rnn(CELLS[name](), xs, dtype=tf.float32)
                out[name], out[f"{name}_state"] = tf.stack(outputs, 1), tf.nest.flatten(state)[0]
        for name in ("gru", "lstm", "basic_lstm", "rnn"):
            with v1.variable_scope(f"{name}_to"):
                outputs, state = v1.nn.static_rnn(CELLS[name](), xs, dtype=tf.float32, sequence_length=lengths)
                out[f"{name}_to"], out[f"{name}_to_state"] = tf.stack(outputs, 1), tf.nest.flatten(state)[0]
        with v1.variable_scope("last_to"):
            outputs, state = v1.nn.static_rnn(CELLS["lstm"](), xs, dtype=tf.float32, sequence_length=lengths)
            out["last_to"], out["last_to_state"] = outputs[-1], state.h
        with v1.variable_scope("ways_to"):
            cells = CELLS["lstm"](), CELLS["gru"]()
            outputs, *_ = v1.nn.static_bidirectional_rnn(*cells, xs, dtype=tf.float32, sequence_length=lengths)
            out["ways_to"] = tf.stack(outputs, 1)
        with v1.variable_scope("ways"):
            outputs, *_ = v1.nn.static_bidirectional_rnn(CELLS["lstm"](), CELLS["gru"](), xs, dtype=tf.float32)
            out["ways"] = tf.stack(outputs, 1)
        session.run(v1.global_variables_initializer())
        rng = np.random.default_rng(5)
        for variable in v1.trainable_variables():
            variable.load(rng.normal(0, 0.4, variable.shape).astype(np.float32), session)
        v1.saved_model.simple_save(session, str(path), {"s": s, "lengths": lengths}, out)


def write_shortcuts(path: Path) -> None:
    """Branches by the lengths of rows at step 1, `x` and `old [n, 4]` and `lengths [n]` in: shortcuts, and near misses."""
    owner = tf.Module()
    owner.scale = tf.Variable([0.5, 1.0, -2.0, 1.5], name="scale")

    def run(x: Any, old: Any, lengths: Any) -> dict[str, Any]:
        def new() -> Any:
            return tf.sin(x * owner.scale)

        def kept(ends: Any = lengths, step: float = 1) -> Any:
            return tf.where(tf.expand_dims(ends <= step, 1), old, new())

        largest, smallest, floats = tf.reduce_max(lengths), tf.reduce_min(lengths), tf.cast(lengths, tf.float32)

        def without_ends() -> Any:
            value = new()
            return tf.cond(smallest > 1, lambda: value, lambda: tf.where(tf.expand_dims(lengths <= 1, 1), old, value))

        value = new()
        return {
            "all_ended": tf.cond(largest <= 1, lambda: old, kept),
            "none_ended": tf.cond(
                smallest > 1, lambda: value, lambda: tf.where(tf.expand_dims(lengths <= 1, 1), old, value)
            ),
            "both": tf.cond(largest <= 1, lambda: old, without_ends),
            # near misses
            "other_step": tf.cond(largest <= 1, lambda: old, lambda: kept(step=0)),
            "other_lengths": tf.cond(largest <= 1, lambda: old, lambda: kept(ends=2 * lengths)),
            "other_result": tf.cond(largest <= 1, lambda: x, kept),
            "of_floats": tf.cond(tf.reduce_max(floats) <= 1.0, lambda: old, lambda: kept(floats, 1.0)),
            "other_test": tf.cond(largest < 1, lambda: old, kept),
        }

    rows = [tf.TensorSpec([None, 4], name=name) for name in ("x", "old")]
    function = tf.function(run).get_concrete_function(*rows, tf.TensorSpec([None], tf.int32, name="lengths"))
    tf.saved_model.save(owner, str(path), signatures=function)
