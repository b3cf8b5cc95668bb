"""Whole towers, built by their producers, ported, and compared with TensorFlow on inputs generated from their graphs.

Every tower is compared twice: with its layers lifted, and op by op.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.corpus.sources import assert_clean, assert_source
from tests.witness import as_array

for producer in ("keras", "tf_keras", "tensorflow_recommenders", "tensorflow_text"):
    if importlib.util.find_spec(producer) is None:
        pytest.skip(
            f"{producer} is a producer of these towers: install requirements-parity.txt", allow_module_level=True
        )

from tests.corpus.producers.towers import TOWERS, Built  # noqa: E402


def ported(built: Built, saved: Callable[..., Path], *, lifts: bool = True) -> PortedTower:
    """The port of a tower."""
    return port_tower(read(saved(built.write), tags=built.tags), built.entry, lifts=lifts)


@pytest.mark.parametrize("lifts", [True, False], ids=["lifted", "op_by_op"])
@pytest.mark.parametrize("built", TOWERS, ids=str)
def test_equal_to_tensorflow(built: Built, lifts: bool, saved: Callable[..., Path], oracle: Oracle) -> None:
    port = ported(built, saved, lifts=lifts)
    given = [{name: as_array(value) for name, value in batch.items()} for batch in built.batches]
    for batches in [[], given] if given else [[]]:
        report = verify_with_tensorflow(port, oracle, batches)
        assert report.passed, "\n".join(report.lines())
        assert report.enough, "TensorFlow refuses rows that were made for it"
        assert set(report.outputs) == set(port.tf_graph.outputs)
    if lifts:
        fewer = {kind: (port.lifted[kind], count) for kind, count in built.lifted.items() if port.lifted[kind] < count}
        assert not fewer, f"lifted, and expected: {fewer}"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sources of these towers are."""
    return tmp_path_factory.mktemp("written")


@pytest.mark.parametrize("built", TOWERS, ids=str)
def test_source_gives_what_the_port_gives(built: Built, saved: Callable[..., Path], sources: Path) -> None:
    assert_source(ported(built, saved), sources, str(built))


def test_sources_are_clean(sources: Path) -> None:
    assert_clean(sources / "sources")
