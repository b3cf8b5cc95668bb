"""Without a fixed length, texts are padded to the longest of the batch, so an embedding depends on the rest of the batch.

TensorFlow's answers vary with the batch, and so do the port's: batch by batch they are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import port_tower
from tests.corpus.producers import keras_towers, tfrs_towers
from tests.corpus.producers.towers import Batch
from tests.witness import as_array
from torch_towers.parity.answers import answer

NAMES = ["the blue sky", "sky", "", " ".join(["blue"] * 20), " ".join(["the blue sky"] * 30)]
TITLES = ["the cat sat", "a cat and a dog and a very long story of a mat", ""]


def batch(*names: str) -> Batch:
    """The row of interest, "sky", and its mates."""
    rows = ["sky", *names]
    return {
        "artist": as_array(["x"] * len(rows)), "genres": as_array([["a", "", "b", "c", "a"]] * len(rows)), "name": as_array(rows),
        "duration": np.full(len(rows), 1e5, np.float32),
    }  # fmt: skip


@pytest.mark.parametrize("lifts", [True, False], ids=["lifted", "op_by_op"])
def test_the_spread_is_tensorflows(
    lifts: bool, saved: Callable[..., Path], oracle: Oracle, capsys: pytest.CaptureFixture[str]
) -> None:
    ported = port_tower(read(saved(tfrs_towers.vertex_tower)), lifts=lifts)
    batches = [batch(), *(batch(name) for name in NAMES), batch(*NAMES)]
    report = verify_with_tensorflow(ported, oracle, batches)
    assert report.passed, "\n".join(report.lines())
    answers = oracle.run(ported.model.path, ported.model.tags, ported.entry, batches)
    theirs = np.stack([found["output_1"][0] for found in answers])
    tower = ported.tower()
    ours = np.stack([answer(tower, one)["output_1"][0] for one in batches])  # type: ignore[index]
    spread, our_spread = np.abs(theirs - theirs[0]).max(), np.abs(ours - ours[0]).max()
    distance = np.abs(ours - theirs).max()
    with capsys.disabled():
        print(
            f"\none row among other mates: TensorFlow's spread {spread:.1e}, the port's {our_spread:.1e}; apart {distance:.1e}"
        )
    assert spread > 0.1, "the mates make no difference: this test shows nothing"
    assert our_spread == pytest.approx(spread, abs=1e-5)


def test_a_fixed_length_has_no_spread(saved: Callable[..., Path]) -> None:
    """The same row alone and in a batch, in a tower with a fixed length."""
    tower = port_tower(read(saved(keras_towers.export(keras_towers.texts)))).tower()
    alone, among = (
        answer(tower, {"title": as_array([["the cat"], *([row] for row in rows)])}) for rows in ([], TITLES)
    )
    for name in ("fixed", "flat", "characters", "multi_hot"):
        # other numbers of rows are summed up by other code: rounding of sums of some tens of numbers below 8
        np.testing.assert_allclose(alone[name][0], among[name][0], rtol=0, atol=1e-5, err_msg=name)  # type: ignore[index]
    assert alone["plain"].shape != among["plain"].shape  # type: ignore[union-attr]
