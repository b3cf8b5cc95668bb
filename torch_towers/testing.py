"""Testing: the parity that a checkpoint was ported with, as an assertion in a user's own tests.

    def test_the_towers_are_tensorflows():
        torch_towers.testing.assert_parity("checkpoints/shop")

With pytest, the fixture `assert_parity` is the same function: `pytest_plugins = ["torch_towers.testing"]` brings it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import torch

from torch_towers.checkpoint import read_samples
from torch_towers.errors import CheckpointError
from torch_towers.recorded import unpack
from torch_towers.two_tower import TwoTower, load
from torch_towers.verify import measured, verify


def assert_parity(
    checkpoint: str | os.PathLike[str],
    towers: TwoTower | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
) -> None:
    """Runs the batches recorded in `checkpoint`, and compares the answers with TensorFlow's by the rule of the port.

    `towers`: what is compared in the place of those loaded from the checkpoint (compiled, quantized, on a GPU). Errors:
    `AssertionError` names the output and what is apart; `CheckpointError` where nothing is recorded.
    """
    content = read_samples(checkpoint)
    if content is None:
        raise CheckpointError(f"{checkpoint}: holds no recorded answers: port it again where TensorFlow is installed")
    if towers is None:
        reports = verify(checkpoint, device=device, dtype=dtype).parity
    else:
        reports = measured(
            towers, unpack(Path(checkpoint) / "samples.npz", content), load(checkpoint, dtype=torch.float64)
        )
    wrong = [
        f"{tower}: {line.strip()}" for tower, report in reports.items() if not report.passed for line in report.lines()
    ]
    if wrong:
        raise AssertionError("\n".join([f"{checkpoint} does not give TensorFlow's answers here:", *wrong]))


if importlib.util.find_spec("pytest") is not None:
    import pytest

    @pytest.fixture(name="assert_parity")
    def assert_parity_fixture() -> Callable[..., None]:
        """`assert_parity`, for tests that ask for it by name."""
        return assert_parity
