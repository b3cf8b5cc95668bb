"""`assert_parity` in a user's tests, on the checkpoint of the examples: TensorFlow's answers are in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import torch_towers
from tests.torch_towers.towers import two_towers
from torch_towers import testing
from torch_towers.errors import CheckpointError
from torch_towers.testing import assert_parity_fixture  # noqa: F401  (pytest finds it here)

PACKAGES = Path(__file__).parents[2] / "checkpoints" / "packages"


def test_the_example_gives_tensorflows_answers() -> None:
    testing.assert_parity(PACKAGES)


def test_towers_that_were_changed_are_named() -> None:
    towers = torch_towers.load(PACKAGES)
    testing.assert_parity(PACKAGES, towers)
    with torch.no_grad():
        next(towers.candidate.encoder.parameters()).mul_(1.5)  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match="does not give TensorFlow's answers here:\ncandidate ") as caught:
        testing.assert_parity(PACKAGES, towers)
    assert "query" not in str(caught.value)


def test_nothing_recorded(tmp_path: Path) -> None:
    two_towers().save(tmp_path / "c")
    with pytest.raises(CheckpointError, match="holds no recorded answers: port it again"):
        testing.assert_parity(tmp_path / "c")


def test_the_fixture_is_the_function(assert_parity: object) -> None:
    assert assert_parity is testing.assert_parity
