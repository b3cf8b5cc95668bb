"""A cell that is applied to one step after another becomes the layer that its loop would be; near misses stay ops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.porting.rewrites.conftest import Exported

KERAS = ("keras", "tf_keras")
PRODUCERS = (*KERAS, "tensorflow_1")
LAYERS = {
    "embed": "Embedding", "gru": "GRU", "gru_before": "GRU", "gru_back": "GRU", "gru_masked": "GRU",
    "lstm": "LSTM", "lstm_from": "LSTM", "lstm_masked": "LSTM", "lstm_masked_from": "LSTM",
    "start": "LSTM", "rnn": "SimpleRNN", "stacked": "SimpleRNN", "ways.forward_both": "GRU", "ways.backward_both": "GRU",
    "pair.cells.gru_cell": "GRU", "pair.cells.lstm_cell": "LSTM",
    "pair_masked.cells.lstm_cell": "LSTM", "pair_masked.cells.simplernn_cell": "SimpleRNN",
    "pair_masked.cells.gru_cell": "GRU", "pair_unrolled.cells.gru_cell": "GRU",
    "pair_unrolled.cells.lstm_cell": "LSTM",
    "items": "GRU", "first": "GRU", "second": "GRU", "between": "Linear",
}  # fmt: skip
REFUSED = {
    "fed": "what it reads depends on what it gives",
    "inner": "its weight 'inner.weight' is also used outside of it",
}

Get = Callable[[str], Exported]


def batch(producer: str, rows: int) -> dict[str, np.ndarray]:
    """Rows with masks that end early, start late, have gaps, or are empty."""
    rng = np.random.default_rng(rows)
    ids = rng.integers(1, 20, (rows, 3)).astype(np.int32) * rng.integers(0, 2, (rows, 3), dtype=np.int32)
    ids[:1] = 0
    ids[1:2] = [[0, 7, 0]]
    given = {"s": rng.normal(0, 1, (rows, 3, 6)).astype(np.float32)}
    lengths = rng.integers(0, 4, rows).astype(np.int32)
    return {**given, "lengths": lengths} if producer == "tensorflow_1" else {**given, "ids": ids}


@pytest.mark.parametrize("producer", KERAS)
def test_layers_have_their_names(exported: Get, producer: str) -> None:
    modules = exported(f"unrolled {producer}").program.named_modules()
    found = {name: type(module).__name__ for name, module in modules if list(module.parameters(recurse=False))}
    assert {name: found.get(name) for name in LAYERS} == LAYERS


@pytest.mark.parametrize("producer", KERAS)
def test_near_misses_stay(exported: Get, producer: str) -> None:
    refusals = exported(f"unrolled {producer}").refusal("Recurrent").splitlines()
    assert len(refusals) == len(REFUSED)  # one for each, not one for each step
    for name, reason in REFUSED.items():
        assert any(reason in line for line in refusals), f"{name}: {refusals}"


def test_cells_of_tensorflow_1(exported: Get) -> None:
    model = exported("unrolled tensorflow_1")
    found = {name: type(model.program.get_submodule(name)).__name__ for name in
             ("fixed.rnn", "gru.rnn.gru_cell", "lstm.rnn", "rnn.rnn", "ways.bidirectional_rnn.fw", "ways.bidirectional_rnn.bw.gru_cell")}  # fmt: skip
    assert list(found.values()) == ["LSTM", "ConcatGRU", "LSTM", "SimpleRNN", "LSTM", "ConcatGRU"]
    assert not {"while_loop", "matmul", "tanh", "sigmoid"} & set(model.lifted.remaining)
    assert model.lifted.remaining["stack"] == 2  # both ways up to a length: steps of a sequence that is reversed


def test_cells_of_tensorflow_1_up_to_a_length(exported: Get) -> None:
    model = exported("unrolled tensorflow_1")
    found = {name: type(model.program.get_submodule(name)).__name__ for name in
             ("gru_to.rnn.gru_cell", "lstm_to.rnn", "basic_lstm_to.rnn", "rnn_to.rnn", "last_to.rnn",
              "ways_to.bidirectional_rnn.fw", "ways_to.bidirectional_rnn.bw.gru_cell")}  # fmt: skip
    assert list(found.values()) == ["ConcatGRU", "LSTM", "LSTM", "SimpleRNN", "LSTM", "LSTM", "ConcatGRU"]
    assert not {"cond", "where"} & set(model.lifted.remaining)


@pytest.mark.parametrize("producer", PRODUCERS)
def test_numbers(exported: Get, producer: str) -> None:
    for rows in (1, 6):
        exported(f"unrolled {producer}").check(batch(producer, rows))


@pytest.mark.parametrize("producer", PRODUCERS)
def test_gradients(exported: Get, producer: str) -> None:
    exported(f"unrolled {producer}").check_gradients_of_ops(batch(producer, 6))
