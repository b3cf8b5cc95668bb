"""Two towers: one of them missing, fine-tuned ones saved, loaded at another precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.torch_towers.towers import (
    DIM,
    ROWS,
    id_tower,
    two_towers,
)
from torch_towers import CheckpointError, TwoTower, load


def test_a_missing_tower() -> None:
    with pytest.raises(CheckpointError, match="no query tower"):
        TwoTower(candidate=id_tower()).encode_query(["a"])
    assert TwoTower(candidate=id_tower()).encode_document([1]).shape == (1, DIM)


def test_fine_tuned_towers_survive_saving(tmp_path: Path) -> None:
    towers = two_towers()
    assert towers.query is not None
    with torch.no_grad():
        for value in towers.query.encoder.parameters():
            value.mul_(1.5)
    towers.save(tmp_path / "c")
    assert load(tmp_path / "c").encode_query(ROWS).equal(towers.encode_query(ROWS))
    assert not towers.encode_query(ROWS).equal(two_towers().encode_query(ROWS))


def test_load_takes_the_name_of_a_dtype(tmp_path: Path) -> None:
    two_towers().save(tmp_path / "c")
    assert load(tmp_path / "c", dtype="float64").encode_query(ROWS).dtype == torch.float64
    for bad in ("int64", "nothing", torch.int32):
        with pytest.raises(ValueError):
            load(tmp_path / "c", dtype=bad)
