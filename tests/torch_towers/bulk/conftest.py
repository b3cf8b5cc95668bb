"""The checkpoint that bulk jobs are tested with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torch_towers.towers import id_tower, word_tower
from torch_towers.two_tower import TwoTower


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bulk") / "towers"
    TwoTower(id_tower(), word_tower(1)).save(path)
    return path
