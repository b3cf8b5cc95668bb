"""Recurrent layers as Keras writes them: a While over TensorLists, run step by step, compiled whole, kept in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.saved_model import read
from porting.tower import port_tower
from tests.witness import tf

keras: Any = pytest.importorskip("keras")
tf_keras: Any = pytest.importorskip("tf_keras")


def lstm(layers: Any, ids: Any) -> Any:
    return layers.LSTM(5)(layers.Embedding(20, 8, mask_zero=True)(ids))


def gru(layers: Any, ids: Any) -> Any:
    return layers.GRU(5)(layers.Embedding(20, 8, mask_zero=True)(ids))


def gru_of_old(layers: Any, ids: Any) -> Any:
    return layers.GRU(5, reset_after=False)(layers.Embedding(20, 8)(ids))


def both_ways(layers: Any, ids: Any) -> Any:
    return layers.Bidirectional(layers.LSTM(5))(layers.Embedding(20, 8, mask_zero=True)(ids))


def stacked(layers: Any, ids: Any) -> Any:
    sequence = layers.LSTM(5, return_sequences=True)(layers.Embedding(20, 8, mask_zero=True)(ids))
    return layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)], go_backwards=True)(sequence)


LAYERS = [
    ("tf_keras", lstm),
    ("keras", lstm),
    ("keras", gru),
    ("tf_keras", gru_of_old),
    ("tf_keras", both_ways),
    ("keras", stacked),
]


@pytest.mark.parametrize("library, layer", LAYERS, ids=[f"{library}-{layer.__name__}" for library, layer in LAYERS])
def test_recurrent(tmp_path: Path, library: str, layer: Any) -> None:
    made = tf_keras if library == "tf_keras" else keras
    made.utils.set_random_seed(3)
    ids = made.Input((None,), dtype="int64")
    model = made.Model(ids, layer(made.layers, ids))
    if library == "keras":
        model.export(str(tmp_path), verbose=False)
    else:
        model.save(str(tmp_path))
    witness = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    ((name, spec),) = witness.structured_input_signature[1].items()
    tower = port_tower(read(tmp_path)).tower()
    random = np.random.default_rng(0)
    for rows, steps in ((3, 6), (1, 1), (5, 9)):
        batch = random.integers(0, 20, (rows, steps))
        batch[0, steps // 2 :] = 0  # masked to the end
        batch = batch.astype(spec.dtype.as_numpy_dtype)
        (theirs,) = witness(**{name: tf.constant(batch)}).values()
        with torch.inference_mode():
            (ours,) = tower({name: batch}).values()
        # Products of up to 8 terms of order 0.1 in another order, over 9 steps
        assert np.abs(ours.numpy() - theirs.numpy()).max() < 5e-7
    if layer is lstm:
        torch._dynamo.reset()
        compiled = torch.compile(tower.encoder, fullgraph=True, backend="eager", dynamic=False)
        batch = np.ones((2, 3), batch.dtype)
        with torch.inference_mode():
            (whole,) = compiled(**tower.preprocess({name: batch})).values()
            (ours,) = tower({name: batch}).values()
        assert (whole - ours).abs().max() < 5e-7  # the same bound: a compiler may add up in another order
