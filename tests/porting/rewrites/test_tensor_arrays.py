"""The loops of TensorFlow 1's `dynamic_rnn` become layers: its arrays are lists of rows, its lengths are masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.porting.rewrites.conftest import Exported
from torch_towers.layers.recurrent import GRU, LSTM, ConcatGRU, SimpleRNN

Get = Callable[[str], Exported]
KINDS = {"gru": ConcatGRU, "lstm": LSTM, "basic_lstm": LSTM, "relu_lstm": LSTM, "rnn": SimpleRNN}


def batch(rows: int, steps: int) -> dict[str, np.ndarray]:
    """Rows of every length, the first one empty."""
    rng = np.random.default_rng(rows)
    lengths = rng.integers(0, steps + 1, rows).astype(np.int32)
    lengths[:1] = 0
    return {"x": rng.normal(0, 1, (rows, steps, 6)).astype(np.float32), "lengths": lengths}


def test_each_is_a_layer_under_its_name(exported: Get) -> None:
    model = exported("cells")
    layers: dict[str, Any] = {name: type(layer) for name, layer in model.program.named_modules()}  # type: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    for name, kind in KINDS.items():
        assert kind in {layer for key, layer in layers.items() if key.startswith(f"{name}.")}, name
    names = {name: tuple(weight.shape) for name, weight in model.program.named_parameters()}
    assert names["gru.rnn.gru_cell.gates.weight"] == (10, 11)
    assert names["gru.rnn.gru_cell.candidate.bias"] == (5,)
    assert names["lstm.rnn.weight_ih"] == (20, 6)
    assert names["rnn_to.rnn.weight_hh"] == (5, 5)
    lifted = model.lifted.counts
    assert (lifted["ConcatGRU"], lifted["LSTM"], lifted["SimpleRNN"], lifted["GRU"]) == (5, 7, 2, 0)
    for name in ("pair", "pair_to"):
        assert [layers[f"{name}.rnn.multi_rnn_cell.{cell}"] for cell in ("cell_0", "cell_1.gru_cell")] == [
            LSTM,
            ConcatGRU,
        ]
    assert GRU not in layers.values()


def test_near_misses_stay(exported: Get) -> None:
    """Peepholes, projections and residuals are other formulas."""
    said = exported("cells").refusal("Recurrent")
    assert "'peepholes.rnn.while" in said
    assert "'projected.rnn.while" in said
    assert "'residual.rnn.while" in said
    assert exported("cells").lifted.remaining["while_loop"] == 3


def test_numbers(exported: Get) -> None:
    for rows, steps in ((1, 1), (4, 6), (7, 3)):
        exported("cells").check(batch(rows, steps))


def test_gradients_are_those_of_the_ops(exported: Get) -> None:
    exported("cells").check_gradients_of_ops(batch(4, 5))


def test_free_sizes_are_exported(exported: Get) -> None:
    layer = exported("cells").program.get_submodule("gru.rnn.gru_cell")
    auto = torch.export.Dim.AUTO
    free = ({0: auto, 1: auto}, {0: auto, 1: auto})
    given = torch.randn(4, 6, 6), torch.rand(4, 6) > 0.5
    whole = torch.export.export(layer, given, dynamic_shapes=free).module()
    with torch.no_grad():
        x, mask = torch.randn(3, 9, 6), torch.rand(3, 9) > 0.5
        torch.testing.assert_close(whole(x, mask), layer(x, mask), rtol=1e-5, atol=1e-6)  # float32 in another order
