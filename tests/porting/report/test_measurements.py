"""What recorded batches show of a tower: errors against the float64 run, their growth, and how many ranks are TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest

from porting.report.measurements import TOP, agreement, measure
from tests.torch_towers.towers import DIM, ROWS, word_spec, word_store, word_tower
from torch_towers.parity.recorded import Recorded
from torch_towers.tower import Tower, TowerSpec

BATCH = {"word": np.array([w.encode() for w in ROWS["word"]], object), "size": np.array(ROWS["size"], np.float32)}


def named() -> Tower:
    """The tower, whose output is said to be the embedding."""
    spec = word_spec()
    return Tower(TowerSpec(spec.preprocess, spec.encoder, None, spec.inputs, spec.outputs, "embedding"), word_store())


def recorded(shift: float = 0.0, kind: str = "domain") -> Recorded:
    answers = word_tower().encode(ROWS).numpy() + np.float32(shift)
    return Recorded(BATCH, {"embedding": answers}, kind=kind)


def test_errors_are_relative_to_the_size_of_the_output() -> None:
    exact = named().double()
    scale = float(np.sqrt(np.mean(exact.encode(ROWS).numpy() ** 2)))
    found = measure(named(), exact, [recorded(0.5), recorded(kind="edge"), Recorded(BATCH, "refused")])
    assert found.rows == {"domain": 4, "edge": 4}
    (errors,) = found.errors  # of the domain alone
    assert (errors.output, errors.port.shape) == ("embedding", (4 * DIM,))
    np.testing.assert_allclose(errors.tensorflow, 0.5 / scale, rtol=1e-3)
    assert errors.port.max() < 1e-5
    assert {"dense_out", "out"} <= {growth.node for growth in found.growth}
    assert all(0 <= growth.error < 1e-5 for growth in found.growth)
    assert found.embeddings is not None
    np.testing.assert_allclose(found.embeddings[1] - found.embeddings[0], 0.5, rtol=1e-3)


def test_nothing_recorded() -> None:
    found = measure(named(), named().double(), [])
    assert (found.rows, found.errors, found.growth, found.embeddings) == ({}, [], [], None)


@pytest.mark.parametrize(("swapped", "share"), [(0, 1.0), (1, 0.75)])
def test_agreement_counts_queries_whose_ranks_are_equal(swapped: int, share: float) -> None:
    queries, candidates = np.eye(4, TOP + 5), np.arange(float((TOP + 5) ** 2)).reshape(TOP + 5, -1) % 17
    theirs = queries.copy()
    theirs[:swapped] *= -1
    assert agreement((queries, theirs), (candidates, candidates)) == share
