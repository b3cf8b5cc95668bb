"""Attention and AdditiveAttention of Keras become layers under their names, with TensorFlow's numbers and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.porting.rewrites.by_hand import layer, lifted, ops
from tests.porting.rewrites.conftest import Exported
from tests.witness import to_runtime
from torch_towers.layers.attention import AdditiveAttention, Attention

Get = Callable[[str], Exported]
PRODUCERS = ("keras", "tf_keras")
KINDS = {
    **{f"{name}{end}": Attention for name in ("scaled", "concat", "concat_scaled") for end in ("", "_masked")},
    **dict.fromkeys(("additive", "additive_masked", "twice", "unscaled", "unscaled_masked"), AdditiveAttention),
    "causal": Attention,
}


def batch(rows: int, length: int = 4) -> dict[str, np.ndarray]:
    """Texts that end early, of which the second is empty."""
    rng = np.random.default_rng(rows)
    ids = rng.integers(1, 20, (rows, length)).astype(np.int32)
    ids[np.arange(length) >= rng.integers(1, length + 1, (rows, 1))] = 0
    ids[1:2] = 0
    s, v = (rng.normal(0, 1, (rows, places, 6)).astype(np.float32) for places in (7, 5))
    return {"ids": ids, "s": s, "v": v}


@pytest.mark.parametrize("producer", PRODUCERS)
def test_each_is_one_layer_under_its_name(exported: Get, producer: str) -> None:
    model = exported(f"{producer} plain_attentions")
    for name, kind in KINDS.items():
        assert type(model.program.get_submodule(name)) is kind, name
    assert not [node.name for node in model.lifted.graph.nodes if node.op == "parameter"]
    names = dict(model.program.named_parameters())
    assert {
        "scaled.scale",
        "concat_scaled.scale",
        "concat_scaled.concat_score_weight",
        "additive.scale",
    } <= names.keys()
    assert model.lifted.remaining["softmax"] == 0


@pytest.mark.parametrize("producer", PRODUCERS)
def test_numbers_and_gradients(exported: Get, producer: str) -> None:
    model = exported(f"{producer} plain_attentions")
    for rows, length in ((1, 1), (3, 4), (8, 6)):
        model.check(batch(rows, length))
    model.check_gradients(batch(8))


def test_free_sizes_are_exported(exported: Get) -> None:
    program = exported("keras plain_attentions").program
    given = {key: to_runtime(value) for key, value in batch(3).items()}
    auto = torch.export.Dim.AUTO
    free: dict[str, Any] = {"ids": {0: auto, 1: auto}, "s": {0: auto}, "v": {0: auto}}
    whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
    other = {key: to_runtime(value) for key, value in batch(5, 9).items()}
    torch.testing.assert_close(whole(**other), program(**other))


def _scores(t: Any, x: Any, scale: Any) -> Any:
    return t.matmul(t.softmax(t.mul(t.matmul(x, t.matrix_transpose(x)), scale)), x)


def test_a_vector_is_no_scale_of_products() -> None:
    found = lifted(_scores, {"x": ("float32", ("batch", 5, 5))}, {"attention.scale": (5,)})
    assert "softmax" in ops(found)
    assert "is not one number" in found.refusals[0]


def test_the_scale_of_sums_is_a_vector() -> None:
    def write(t: Any, x: Any, scale: Any) -> Any:
        sums = t.tanh(t.add(t.unsqueeze(x, axis=2), t.unsqueeze(x, axis=1)))
        return t.matmul(t.softmax(t.reduce_sum(t.mul(sums, scale), axes=(-1,), keepdim=False)), x)

    found = lifted(write, {"x": ("float32", ("batch", 5, 4))}, {"attention.scale": (4,)})
    assert layer(found) == ("AdditiveAttention", {"dim": 4})
    found = lifted(write, {"x": ("float32", ("batch", 5, 4))}, {"attention.scale": (5, 4)})
    assert "its scale has shape [5, 4], expected [4]" in found.refusals[0]
