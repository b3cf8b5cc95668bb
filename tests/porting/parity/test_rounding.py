"""The rounding bound of a graph: errors of correct towers stay below it, small mistakes do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.parity import bounds
from porting.parity import report as rule
from porting.parity.bounds import FACTOR, RUNS
from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.parity.reference import reference
from porting.parity.rounding import UNIT, Disturbances, Disturbed
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.witness import tf
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


@pytest.mark.parametrize("size", [64, 1000])
def test_errors_of_a_spectrum_are_within_it_in_small_bins_too(size: int) -> None:
    """A periodic sound leaves most bins near zero, with errors of the size of the loud ones."""
    sound = torch.tensor([0.25, 2.0, 0.5, 3.25, -0.5, -1.0, 10.0, 0.0]).repeat(size // 8)[None] * torch.hann_window(
        size
    )
    exact = torch.fft.rfft(sound.double()).abs()
    runs: list[torch.Tensor] = []
    for seed in range(RUNS):
        with Disturbed(seed, torch.empty(0, dtype=torch.float64)) as mode:
            mode.unit = UNIT[torch.float32]
            runs.append((torch.fft.rfft(sound.double()).abs() - exact).abs())
    moved = torch.stack(runs).amax(0)
    errors = (torch.fft.rfft(sound).abs().double() - exact).abs()
    assert bool((errors <= FACTOR * moved).all())
    assert bool((moved <= 1e-6 * exact.square().mean().sqrt()).all())


def test_complex_numbers_are_disturbed_as_the_floats_that_they_are(tmp_path: Path) -> None:
    def spectrum(x: Any) -> Any:
        return {"y": tf.math.log(tf.abs(tf.signal.rfft(x)) + 1e-6)}

    module = tf.Module()
    module.serve = tf.function(spectrum, input_signature=[tf.TensorSpec([None, 64], tf.float32, "x")])
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve.get_concrete_function())
    ported = port_tower(read(tmp_path))
    x = {"x": np.tile(np.float32([0.25, 2.0, 0.5, 3.25]), 16)[None]}
    run = Disturbances(ported.tower(), reference(ported)).run(x, 1)["y"].numpy()
    true = answer(reference(ported), x)
    assert not isinstance(true, str)
    quiet = true["y"] < -10  # log(0 + 1e-6): what rounding leaves there is far more than a rounding of the logarithm
    assert quiet.any() and np.abs(run - true["y"])[quiet].max() > 1e-3


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
