"""A checkpoint of two towers made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.torch_towers.towers import id_tower, word_tower
from torch_towers.two_tower import TwoTower


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "towers"
    TwoTower(word_tower(), id_tower()).save(path)
    return path


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"sku": f"s{i}", "id": i, "color": "red"}) + "\n" for i in range(8)))
    return path
