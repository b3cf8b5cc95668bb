"""A tower whose encoder is a BERT is found by structure, and written as transformers has it; anything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.torch_towers.ports import checkpoint
from tests.torch_towers.source.bert import PLACES, VOCAB, bert
from tests.torch_towers.source.sentence_folder import embedding
from torch_towers import load
from torch_towers.errors import TorchTowersError
from torch_towers.tower import Tower


def batches(tower: Tower) -> list[tuple[dict[str, Any], Any, bool]]:
    random = torch.Generator().manual_seed(1)
    found = []
    for rows, length in ((1, 1), (3, 7), (2, PLACES)):
        lengths = torch.randint(1, length + 1, (rows, 1), generator=random)
        ids = torch.randint(2, VOCAB, (rows, length), generator=random)
        given = {"ids": ids, "mask": torch.arange(length) < lengths}
        found.append((given, {"y": tower.encoder(**given)["y"].detach()}, True))
    return found


def test_a_tower_that_is_none_of_them_is_refused(tmp_path: Path) -> None:
    tower = load(checkpoint()).query
    with pytest.raises(TorchTowersError, match="none of transformers' models"):
        tower.to_transformers(tmp_path / "made")
    assert not list(tmp_path.iterdir())


KINDS: dict[str, dict[str, Any]] = {
    "DistilBertModel": {"pooling": "mean"},
    "BertModel": {"pooling": "pooler"},
    "RobertaModel": {"pooling": "cls", "eps": 1e-5, "lowest": 2},  # it counts places without its padding, the id 1
    "ElectraModel": {"narrow": 4},
    "AlbertModel": {"narrow": 4, "run": (0, 0), "pooling": "pooler"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_it(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="it reads the folder: install the extra [transformers]")
    tower = bert(**KINDS[kind])
    made = batches(tower)
    written = tower.to_transformers(tmp_path / "made", made[0][0])
    assert written.model == kind and all(item.passed and item.rows >= 10 for item in written.compared)
    assert written.tokenizer == "no tokenizer is in it: the tower takes ids"
    pooling = KINDS[kind].get("pooling", "mean")
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "made")).__name__ == kind
    for given, expected, _ in made:
        inputs = {"input_ids": given["ids"], "attention_mask": given["mask"].long()}
        torch.testing.assert_close(embedding(tmp_path / "made", inputs), expected["y"])
    listed = [item["path"] for item in json.loads((tmp_path / "made" / "modules.json").read_text())]
    assert listed == ["", "1_Pooling", *(["2_Dense", "3_Normalize"] if pooling == "pooler" else ["2_Normalize"])]
    with pytest.raises(TorchTowersError, match="already exists"):
        tower.to_transformers(tmp_path / "made")


RUNS = {(0, 0, 0): (3, 1, 1), (0, 0, 1, 1): (4, 2, 1), (0, 1, 0, 1): (2, 1, 2), (0, 1, 0, 1, 2, 3, 2, 3): (4, 2, 2)}
"""Which layer runs at each step, and ALBERT's numbers for it: of layers, of groups, and of layers in each group."""


@pytest.mark.parametrize("run", RUNS)
def test_layers_that_run_again_are_alberts_groups(run: tuple[int, ...], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="it reads the folder: install the extra [transformers]")
    written = bert(narrow=4, run=run, pooling="pooler").to_transformers(tmp_path / "made")
    assert written.model == "AlbertModel" and all(item.passed for item in written.compared)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "made")
    assert (config.num_hidden_layers, config.num_hidden_groups, config.inner_group_num) == RUNS[run]


def test_layers_that_run_unequally_often_are_no_alberts(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="it reads the folder: install the extra [transformers]")
    assert bert(narrow=4, run=(0, 0, 1)).to_transformers(tmp_path / "made").model == "ElectraModel"


def test_padding_within_a_row_is_no_roberta(tmp_path: Path) -> None:
    """RoBERTa counts places without its padding, wherever that stands: a tower that counts all places is a BERT."""
    pytest.importorskip("transformers", reason="it reads the folder: install the extra [transformers]")
    assert bert(eps=1e-5).to_transformers(tmp_path / "made").model == "BertModel"
