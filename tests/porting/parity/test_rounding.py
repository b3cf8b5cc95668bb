"""What rounding can do in a graph: errors of right towers stay below it, small mistakes do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from porting.parity import bounds
from porting.parity import report as rule
from porting.parity.bounds import FACTOR, RUNS
from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.parity.reference import reference
from porting.parity.rounding import Disturbances
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from torch_towers.parity.answers import answer

QUERY = Path(__file__).parents[3] / "examples" / "packages" / "query_model"
TEXTS = {"text": np.array([b"edit photos", b"play chess", b"", b"web browser"], object)}


@pytest.fixture(scope="module")
def ported() -> PortedTower:
    return port_tower(read(QUERY))


def used(ported: PortedTower, off: float) -> float:
    """The largest part of what is allowed that an error takes, where the port is `off` beside."""
    tower, exact = ported.tower(), reference(ported)
    disturbed = Disturbances(tower, exact)
    ours, true = answer(tower, TEXTS), answer(exact, TEXTS)
    assert not isinstance(ours, str) and not isinstance(true, str)
    runs = [disturbed.run(TEXTS, seed)["output_0"].numpy() for seed in range(RUNS)]
    moved = np.max([np.abs(run - true["output_0"]) for run in runs], axis=0)
    return float(np.max(np.abs(ours["output_0"] + off - true["output_0"]) / (FACTOR * moved)))


def test_errors_of_a_right_tower_are_within_it(ported: PortedTower) -> None:
    assert used(ported, 0.0) < 1.0


def test_a_small_mistake_is_not(ported: PortedTower) -> None:
    assert used(ported, 1e-5) > 1.0


def test_the_same_seed_disturbs_the_same(ported: PortedTower) -> None:
    runs = [Disturbances(ported.tower(), reference(ported)).run(TEXTS, seed)["output_0"] for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_a_port_that_is_less_exact_than_tensorflow_is_judged_by_it(
    ported: PortedTower, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, "RATIO", 0.0)
    monkeypatch.setattr(rule, "FLOOR_ULP", 0.0)
    report = verify_with_tensorflow(ported, oracle)
    assert report.passed and 0 < (report.outputs["output_0"].rounding or 0.0) <= 1
    assert "of what rounding can do in this graph" in "\n".join(report.lines())
    monkeypatch.setattr(bounds, "FACTOR", 1e-6)
    assert not verify_with_tensorflow(ported, oracle).passed
