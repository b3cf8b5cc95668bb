"""A tower whose encoder is a BERT is found by structure, and written as transformers has it; anything else is refused by name."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.torch_towers.ports import checkpoint
from tests.torch_towers.source.bert import PLACES, VOCAB, bert
from torch_towers import load
from torch_towers.errors import TorchTowersError
from torch_towers.graph.graph import ModuleSpec
from torch_towers.source.bert import found_bert
from torch_towers.source.to_transformers import to_transformers
from torch_towers.tower import Tower


def batches(tower: Tower) -> list[tuple[dict[str, Any], Any, bool]]:
    random = torch.Generator().manual_seed(1)
    found = []
    for rows, length in ((1, 1), (3, 7), (2, PLACES)):
        lengths = torch.randint(1, length + 1, (rows, 1), generator=random)
        ids = torch.randint(0, VOCAB, (rows, length), generator=random)
        given = {"ids": ids, "mask": torch.arange(length) < lengths}
        found.append((given, {"y": tower.encoder(**given)["y"].detach()}, True))
    return found


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_its_sizes_and_weights_are_found(pooling: str) -> None:
    found = found_bert(bert(3, 8, 2, form="tanh", pooling=pooling))
    assert found.config["num_hidden_layers"] == 3 and found.config["num_attention_heads"] == 2
    assert found.config["hidden_act"] == "gelu_pytorch_tanh" and found.config["intermediate_size"] == 32
    assert (found.pooling, found.normalized, found.ids) == ("mean" if pooling == "mean" else "cls", True, "ids")
    assert (found.dense is not None and found.dense.tanh) == (pooling == "pooler")
    assert len(found.weights) == 5 + 3 * 16


def test_another_scale_is_another_model() -> None:
    tower = bert()
    spec = tower.spec
    modules = dict(spec.encoder.modules)
    held = modules["layer_1.attention"]
    modules["layer_1.attention"] = ModuleSpec(held.type, {**held.args, "scale": 1.0})
    other = Tower(replace(spec, encoder=replace(spec.encoder, modules=modules)), dict(tower.encoder.tensors()))
    with pytest.raises(TorchTowersError, match=r"encoder\.layer\.1 has other sizes or another scale"):
        found_bert(other)


def test_a_tower_that_is_no_bert_is_refused(tmp_path: Path) -> None:
    tower = load(checkpoint()).query
    with pytest.raises(TorchTowersError, match="no BERT as transformers has it"):
        to_transformers(tower, tmp_path / "made", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_transformers_reads_it(pooling: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is what reads the folder: install the extra [transformers]")
    from transformers import AutoModel

    tower = bert(pooling=pooling)
    made = batches(tower)
    (found,) = to_transformers(tower, tmp_path / "made", made)
    assert found.passed and found.rows == 6
    model = AutoModel.from_pretrained(tmp_path / "made").eval()
    given, expected, _ = made[1]
    hidden = model(input_ids=given["ids"], attention_mask=given["mask"].long()).last_hidden_state
    kept = given["mask"].unsqueeze(-1).float()
    pooled = (hidden * kept).sum(1) / kept.sum(1) if pooling == "mean" else hidden[:, 0]
    if pooling == "pooler":
        dense = load_file(tmp_path / "made" / "2_Dense" / "model.safetensors")
        pooled = torch.tanh(torch.nn.functional.linear(pooled, dense["linear.weight"], dense["linear.bias"]))
    torch.testing.assert_close(torch.nn.functional.normalize(pooled, dim=-1), expected["y"])
    listed = [item["path"] for item in json.loads((tmp_path / "made" / "modules.json").read_text())]
    dense = ["2_Dense", "3_Normalize"] if pooling == "pooler" else ["2_Normalize"]
    assert listed == ["", "1_Pooling", *dense]
    with pytest.raises(TorchTowersError, match="is there already"):
        to_transformers(tower, tmp_path / "made", made)
