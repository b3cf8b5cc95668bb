"""A checkpoint of two towers, as it is saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torch_towers.towers import (
    two_towers,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a checkpoint, ünïcode"
    two_towers().save(path)
    return path
