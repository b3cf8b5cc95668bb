"""Keras's attention becomes one layer with its four projections, and matches TensorFlow under every mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from tests.porting.rewrites.conftest import Exported
from torch_towers.layers.attention import MultiHeadAttention
from torch_towers.layers.embedding import PositionEmbedding

Get = Callable[[str], Exported]
PRODUCERS = ("keras", "tf_keras")


def batch(rows: int) -> dict[str, np.ndarray]:
    """Texts of every length, the second one empty, and masks of which some mask a position fully."""
    rng = np.random.default_rng(rows)
    ids = rng.integers(1, 30, (rows, 6)).astype(np.int32)
    ids[np.arange(6) >= rng.integers(1, 7, (rows, 1))] = 0
    ids[1:2] = 0
    mask = rng.random((rows, 7, 5)) < 0.5
    mask[:, 2] = False
    s, v = (rng.normal(0, 1, (rows, length, 16)).astype(np.float32) for length in (7, 5))
    return {"ids": ids, "s": s, "v": v, "mask": mask}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_each_is_one_layer_under_its_name(exported: Get, producer: str) -> None:
    model = exported(f"{producer} attentions")
    for name in ("attention_0", "attention_1", "across", "causal", "twice"):
        layer = model.program.get_submodule(name)
        assert type(layer) is MultiHeadAttention, name
        parts = [key for key, part in layer.named_children() if type(part) is nn.Linear]
        assert parts == ["query", "key", "value", "attention_output"]
    assert type(model.program.get_submodule("positions")) is PositionEmbedding
    assert "positions.weight" in dict(model.program.named_parameters())
    assert model.lifted.counts["MultiHeadAttention"] == 5 and model.kind("dot") == "attention"
    assert model.lifted.remaining["softmax"] == 1, "scores that are asked for are computed"
    assert type(model.program.get_submodule("scored.query")) is nn.Linear


@pytest.mark.parametrize("producer", PRODUCERS)
def test_numbers_under_every_mask(exported: Get, producer: str) -> None:
    model = exported(f"{producer} attentions")
    for rows in (1, 3, 8):
        given = batch(rows)
        if rows > 1:
            given["ids"][1, 0] = 3  # a text of nothing has an average of nothing: NaN in both
        model.check(given, ulp=256)  # two blocks, one on the other


@pytest.mark.parametrize("producer", PRODUCERS)
def test_gradients(exported: Get, producer: str) -> None:
    given = batch(8)
    given["ids"][1, 0] = 3
    exported(f"{producer} attentions").check_gradients(given)


def test_near_misses(exported: Get) -> None:
    almost = exported("near_misses")
    assert almost.kind("soft_mask") == almost.kind("wide_bias") == "matmul"
    assert "so it may be negative" in almost.refusal("PositionEmbedding")
    said = almost.refusal("attention")
    assert "its mask sets scores to -5.0, which is too high to mask them" in said
    assert "its mask may have more axes than its scores" in said
