"""The cells of TensorFlow 1 under `dynamic_rnn`: every kind, over all steps, up to a length, both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.witness import tf

v1 = tf.compat.v1
CELLS: dict[str, Callable[[], Any]] = {
    "gru": lambda: v1.nn.rnn_cell.GRUCell(5),
    "lstm": lambda: v1.nn.rnn_cell.LSTMCell(5),
    "basic_lstm": lambda: v1.nn.rnn_cell.BasicLSTMCell(5, forget_bias=0.5),
    "relu_lstm": lambda: v1.nn.rnn_cell.LSTMCell(5, activation=tf.nn.relu, forget_bias=0.0),
    "rnn": lambda: v1.nn.rnn_cell.BasicRNNCell(5),
    "peepholes": lambda: v1.nn.rnn_cell.LSTMCell(5, use_peepholes=True),
    "projected": lambda: v1.nn.rnn_cell.LSTMCell(5, num_proj=3),
    "pair": lambda: v1.nn.rnn_cell.MultiRNNCell([CELLS["lstm"](), CELLS["gru"]()]),
    "residual": lambda: v1.nn.rnn_cell.ResidualWrapper(v1.nn.rnn_cell.BasicRNNCell(6)),
}


def write(path: Path) -> None:
    """One scope for each cell: `x [n, length, 6]` and `lengths [n]` in; outputs, last states, and both ways out."""
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x, lengths = v1.placeholder(tf.float32, [None, None, 6], "x"), v1.placeholder(tf.int32, [None], "lengths")
        out: dict[str, Any] = {}
        for name, cell in CELLS.items():
            with v1.variable_scope(name):
                out[name], state = v1.nn.dynamic_rnn(cell(), x, dtype=tf.float32)
                out[f"{name}_state"] = tf.nest.flatten(state)[0]
        for name in ("gru", "lstm", "rnn", "pair"):
            with v1.variable_scope(f"{name}_to"):
                out[f"{name}_to"], state = v1.nn.dynamic_rnn(CELLS[name](), x, lengths, dtype=tf.float32)
                out[f"{name}_to_state"] = tf.nest.flatten(state)[0]
        with v1.variable_scope("ways"):
            both, _ = v1.nn.bidirectional_dynamic_rnn(CELLS["lstm"](), CELLS["gru"](), x, lengths, dtype=tf.float32)
            out["ways"] = tf.concat(both, -1)
        session.run(v1.global_variables_initializer())
        rng = np.random.default_rng(5)
        for variable in v1.trainable_variables():
            variable.load(rng.normal(0, 0.4, variable.shape).astype(np.float32), session)
        v1.saved_model.simple_save(session, str(path), {"x": x, "lengths": lengths}, out)
