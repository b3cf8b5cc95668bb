"""Transformers in every spelling: all parameters in layers under their names, TensorFlow's numbers and gradients, free sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.porting.rewrites.conftest import Exported
from tests.porting.rewrites.transformers import FAMILIES, LAYERS
from tests.witness import run, to_runtime
from torch_towers.errors import InputError
from torch_towers.graph.graph import node_of
from torch_towers.program.blocks import repeats

Get = Callable[[str], Exported]
KINDS = {
    "bert": {"Linear", "Embedding", "PositionEmbedding", "LayerNorm"},
    "gpt": {"MultiHeadAttention", "Linear", "Embedding", "PositionEmbedding", "LayerNorm"},
    "llama": {"Linear", "Embedding", "RMSNorm"},
    "gemma": {"MultiHeadAttention", "Linear", "Embedding", "OffsetRMSNorm"},
}


def batch(rows: int, length: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows + length)
    lengths = rng.integers(1, length + 1, (rows, 1))
    return {"ids": rng.integers(0, 30, (rows, length)).astype(np.int32), "mask": np.arange(length) < lengths}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_a_layer(exported: Get, family: str) -> None:
    model = exported(f"transformer {family}")
    graph = model.lifted.graph
    assert not [node.name for node in graph.nodes if node.op == "parameter"]
    assert {spec.type for spec in graph.modules.values()} == KINDS[family]
    assert "softmax" not in model.lifted.remaining and "einsum" not in model.lifted.remaining
    names = set(model.program.state_dict())
    scope = "block_1" if family == "gemma" else "layer_1"
    assert {"bert": f"{scope}.attention.query.weight", "gpt": f"{scope}.self_attention.query.weight",
            "llama": f"{scope}.attention_norm.weight", "gemma": f"{scope}.first_norm.weight"}[family] in names  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_and_gradients(exported: Get, family: str) -> None:
    model = exported(f"transformer {family}")
    for rows, length in ((1, 1), (3, 7), (2, 12)):
        model.check(batch(rows, length), ulp=256)  # two blocks, one on the other
    model.check_gradients(batch(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_its_blocks_are_found(exported: Get, family: str) -> None:
    graph = exported(f"transformer {family}").lifted.graph
    (found,) = repeats(graph)
    assert len(found.blocks) == LAYERS and len(found.carries) == 1
    assert node_of(graph.outputs["y"]) not in found.blocks[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_export_with_free_sizes(exported: Get, family: str) -> None:
    program = exported(f"transformer {family}").program
    given = {key: to_runtime(value) for key, value in batch(3).items()}
    free = {name: dict.fromkeys((0, 1), torch.export.Dim.AUTO) for name in given}
    whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
    for rows, length in ((2, 5), (5, 11)):
        other = {key: to_runtime(value) for key, value in batch(rows, length).items()}
        torch.testing.assert_close(whole(**other), program(**other))


def test_a_place_that_may_take_nothing_gets_nothing(exported: Get) -> None:
    """KerasHub masks the shares too, where a softmax alone gives the average of all."""
    model = exported("transformer gemma")
    given = batch(2)
    given["mask"][1] = False
    model.check(given, ulp=256)


def test_a_text_beyond_the_table_is_refused(exported: Get) -> None:
    with pytest.raises(InputError, match=r"Expected size\[0\] in \[0, 12\], but got 13"):
        run(exported("transformer gpt").program, batch(2, 13))
