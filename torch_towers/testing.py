"""Parity with TensorFlow as an assertion for users' tests.

    def test_the_towers_are_tensorflows():
        torch_towers.testing.assert_parity("checkpoints/shop")

With pytest, `pytest_plugins = ["torch_towers.testing"]` provides the fixture `assert_parity`, the same function.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import torch

from torch_towers.errors import CheckpointError
from torch_towers.info import recorded_parity
from torch_towers.parity.verify import compared, recorded_in
from torch_towers.two_tower import TwoTower, load


def assert_parity(
    checkpoint: str | os.PathLike[str],
    towers: TwoTower | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
) -> None:
    """Runs the batches recorded in `checkpoint` and compares the outputs with TensorFlow's, as `torch-towers verify`
    does.

    `towers`: compared instead of those loaded from the checkpoint (compiled, quantized, on a GPU). Errors:
    `AssertionError` names tower, output and distance; `CheckpointError` if nothing is recorded.
    """
    batches = recorded_in(Path(checkpoint))
    if not batches:
        raise CheckpointError(f"{checkpoint}: holds no recorded answers: port it again where TensorFlow is installed")
    towers = load(checkpoint, device=device, dtype=dtype) if towers is None else towers
    checked = compared(towers, batches, recorded_parity(Path(checkpoint)))
    wrong = [f"{found.tower} {found.output}: {found.said}" for found in checked if not found.passed]
    if wrong:
        raise AssertionError("\n".join([f"{checkpoint} does not give TensorFlow's answers here:", *wrong]))


if importlib.util.find_spec("pytest") is not None:
    import pytest

    @pytest.fixture(name="assert_parity")
    def assert_parity_fixture() -> Callable[..., None]:
        """`assert_parity` as a fixture."""
        return assert_parity
