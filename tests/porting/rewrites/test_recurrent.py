"""Recurrent layers of Keras 3 and tf_keras become layers and match TensorFlow's numbers and gradients; near misses stay ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.porting.rewrites.conftest import Exported
from tests.witness import tf, to_numpy, to_runtime
from torch_towers.errors import InputError

PRODUCERS = ("keras", "tf_keras")
LIFTED = {
    "gru": "GRU", "gru_masked": "GRU", "gru_reset_before": "GRU", "gru_back": "GRU",
    "gru_relu": "GRU", "gru_hard": "GRU", "gru_dropout": "GRU", "gru_masked_from": "GRU",
    "lstm_state": "LSTM", "lstm_from": "LSTM", "lstm_hard": "LSTM", "lstm_dropout": "LSTM", "lstm_cell_state": "LSTM", "second": "LSTM",
    "rnn": "SimpleRNN", "stacked": "SimpleRNN", "rnn_linear": "SimpleRNN", "rnn_state": "SimpleRNN",
}  # fmt: skip
STAYS = {
    "other_activation": "its step is not that of a GRU, LSTM, SimpleRNN or ConvLSTM",
    "forth": "has its weights, and is another layer",
}

Get = Callable[[str], Exported]


def sequences(rows: int, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows with masks that end early, start late, have gaps, or are empty."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 20, (rows, steps)).astype(np.int32)
    ids[:1, steps // 2 :] = 0
    ids[1:2, : steps // 2] = 0
    ids[2:3] = 0
    ids[3:] *= rng.integers(0, 2, ids[3:].shape, dtype=np.int32)
    return {"s": rng.normal(0, 1, (rows, steps, 8)).astype(np.float32), "ids": ids}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_layers(exported: Get, producer: str) -> None:
    model = exported(f"{producer} sequences")
    assert {name: model.kind(name) for name in LIFTED} == LIFTED
    lifted = model.lifted.counts
    assert {kind: lifted[kind] for kind in sorted(set(LIFTED.values()))} == {"GRU": 8, "LSTM": 10, "SimpleRNN": 4}
    for rows, steps in ((5, 6), (1, 1), (7, 3)):
        model.check(sequences(rows, steps))  # sums of up to 8 products in another order, over 6 steps of tanh


@pytest.mark.parametrize("producer", PRODUCERS)
def test_names(exported: Get, producer: str) -> None:
    weights = {
        name: tuple(value.shape) for name, value in exported(f"{producer} sequences").program.state_dict().items()
    }
    gru = {"weight_ih": (15, 8), "weight_hh": (15, 5), "bias_ih": (15,), "bias_hh": (15,)}
    assert {name: weights[f"gru.{name}"] for name in gru} == gru
    lstm = {"weight_ih": (20, 8), "weight_hh": (20, 5), "bias_ih": (20,)}
    assert {name.partition(".")[2]: shape for name, shape in weights.items() if name.startswith("lstm_from.")} == lstm
    assert [name for name in weights if name.startswith("gru_back.")] == ["gru_back.weight_ih", "gru_back.weight_hh"]
    assert sum(name.startswith("ways.") and name.endswith(".weight_hh") for name in weights) == 2


@pytest.mark.parametrize("producer", PRODUCERS)
def test_near_misses_stay(exported: Get, producer: str) -> None:
    model = exported(f"{producer} sequences")
    refusals = model.refusal("Recurrent")
    for name, sentence in STAYS.items():
        assert any(sentence in line for line in refusals.splitlines() if f"'{name}." in line or f"'{name}_" in line), (
            f"{name}: {refusals}"
        )
        assert model.kind(name) not in LIFTED.values(), name


@pytest.mark.parametrize("producer", PRODUCERS)
def test_gradients_are_those_of_the_ops(exported: Get, producer: str) -> None:
    """In float64: the ops' own gradients were compared with TensorFlow's, and the loop's are the same sums."""
    model = exported(f"{producer} sequences")
    batch = sequences(4, 5)
    found: list[dict[str, Tensor]] = []
    for program in (model.plain, model.program):
        program.double().zero_grad()
        try:
            given = {key: to_runtime(value) for key, value in batch.items()}
            given["s"] = given["s"].double().requires_grad_()
            outputs = program(**given)
            sum(((value * value).sum() for value in outputs.values()), torch.zeros(())).backward()
            found.append({name: weight.grad for name, weight in program.named_parameters() if weight.grad is not None})
            found[-1]["s"] = given["s"].grad
        finally:
            program.float()
    plain, lifted = found
    # float64 in another order, measured within 1e-15
    torch.testing.assert_close(lifted["s"], plain["s"], rtol=1e-9, atol=1e-9)
    assert {name: origin for name, origin in model.lifted.origins.items() if name.startswith("gru.bias")} == {
        "gru.bias_ih": "gru.gru_cell.bias",
        "gru.bias_hh": "gru.gru_cell.bias",
    }


@pytest.mark.parametrize("producer", PRODUCERS)
def test_gradients_are_tensorflows(exported: Get, producer: str) -> None:
    model = exported(f"{producer} sequences")
    batch = sequences(4, 5)
    with tf.GradientTape() as tape:
        s = tf.constant(batch["s"])
        tape.watch(s)
        theirs = model.signature(s=s, ids=tf.constant(batch["ids"]))
        loss = tf.add_n([tf.reduce_sum(value**2) for value in theirs.values()])
    expected = to_numpy(tape.gradient(loss, s))
    given = {key: to_runtime(value) for key, value in batch.items()}
    given["s"].requires_grad_()
    outputs = model.program(**given)
    sum(((value * value).sum() for value in outputs.values()), torch.zeros(())).backward()
    # float32 sums of some hundred products of order 1 in another order, through up to 10 steps
    np.testing.assert_allclose(given["s"].grad.numpy(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("producer", PRODUCERS)
def test_every_activation_of_keras(exported: Get, producer: str) -> None:
    model = exported(f"{producer} activated_sequences")
    kinds = {"lstm_mish": "LSTM", "gru_gelu": "GRU"}
    assert {name: model.kind(name) for name in model.lifted.graph.outputs} == {
        name: kinds.get(name, "SimpleRNN") for name in model.lifted.graph.outputs
    }
    for rows in (1, 5):
        model.check({"s": sequences(rows, 3)["s"][:, :, :4]})


SHARED = {
    "twice": "SimpleRNN", "masked": "GRU", "again": "LSTM", "stacked.cells.gru_cell": "GRU", "stacked.cells.lstm_cell": "LSTM",
    "outer": "GRU",
}  # fmt: skip
OF_EACH = {
    "keras": ("each.gru", "each_all.lstm", "each_way.both.forward_gru", "each_way.both.backward_gru"),
    "tf_keras": ("each", "each_all", "each_way.forward_gru", "each_way.backward_gru"),
}


def words(rows: int, steps: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    given = {**sequences(rows, steps), "s": rng.normal(0, 1, (rows, steps, 6)).astype(np.float32)}
    words = rng.integers(1, 20, (rows, 2, 4)) * rng.integers(0, 2, (rows, 2, 4))
    words[:1, 0] = 0
    return {**given, "words": words.astype(np.int32)}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_layers_that_are_called_several_times(exported: Get, producer: str) -> None:
    model = exported(f"{producer} shared_sequences")
    found = {name: type(module).__name__ for name, module in model.program.named_modules()}
    assert {name: found.get(name) for name in SHARED} == SHARED
    assert all(found[name] in ("GRU", "LSTM") for name in OF_EACH[producer])
    assert "while_loop" not in model.lifted.remaining
    calls = [str(node.attrs["module"]) for node in model.lifted.graph.nodes if node.op == "module"]
    twice = {name for name in calls if calls.count(name) > 1}
    assert twice == {*SHARED, "embed"} - {"outer"}  # a step of a sequence of sequences is not called alone


@pytest.mark.parametrize("producer", PRODUCERS)
def test_numbers_of_layers_that_are_called_several_times(exported: Get, producer: str) -> None:
    model = exported(f"{producer} shared_sequences")
    for rows, steps in ((5, 6), (1, 1), (3, 4)):
        model.check(words(rows, steps))
    model.check_gradients_of_ops(words(4, 5))


def test_a_sequence_without_steps_is_refused(exported: Get) -> None:
    layer = exported("keras sequences").program.get_submodule("gru")
    with pytest.raises(InputError, match="needs at least one step"):
        layer(torch.zeros(2, 0, 8))


def test_whole_program_compiles_and_exports_with_free_lengths(exported: Get) -> None:
    """A program of layers alone: those that stay loops fix their length."""
    from torch import nn

    class Two(nn.Module):
        def __init__(self, layers: Any) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor, mask: Tensor) -> list[Any]:
            return [layer(x, mask) if masked else layer(x) for layer in self.layers for masked in (False, True)]

    program = exported("keras sequences").program
    layers = nn.ModuleList(
        [program.get_submodule(name) for name in ("gru", "gru_back", "lstm_from", "rnn", "gru_reset_before")]
    )
    two, batch = Two(layers), sequences(4, 6)
    x, mask = torch.from_numpy(batch["s"]), torch.from_numpy(batch["ids"] != 0)
    rows, steps = torch.export.Dim("rows"), torch.export.Dim("steps")
    free = {"x": {0: rows, 1: steps}, "mask": {0: rows, 1: steps}}
    program_of_two = torch.export.export(two, (x, mask), dynamic_shapes=free).module()
    compiled = torch.compile(two, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for n, length in ((4, 6), (2, 11)):
            batch = sequences(n, length, seed=n)
            x, mask = torch.from_numpy(batch["s"]), torch.from_numpy(batch["ids"] != 0)
            expected = two(x, mask)
            for found in (program_of_two(x, mask), compiled(x, mask)):
                # a loop of single steps, and torch's kernel for the whole sequence: float32 in another order
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
