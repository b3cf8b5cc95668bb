"""Real SavedModels with TensorFlow's recorded outputs: every entry ports and is equal, or is refused for the expected reason.

Needs no TensorFlow. TORCH_TOWERS_CORPUS names the folder; without it nothing is compared.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from porting.errors import PortingError
from porting.parity.comparison import verify_with_reference, verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import port_tower
from tests.corpus.catalog import (
    EVERY,
    FEATURES,
    FOLDER,
    RECORDED_LATER,
    REFUSE,
    SIDE_EFFECTS,
    Recorded,
    catalog,
    entry_of,
)  # fmt: skip
from tests.corpus.sources import assert_clean, assert_source

if not catalog():
    pytest.skip("TORCH_TOWERS_CORPUS names no folder of SavedModels", allow_module_level=True)

LONG = ("img-", "aud-", "txt-wordshape", "tf1-cifar", "tf1-mnistconv")
"""Convolutions over images and sound, and the largest graph."""
MISSING = {
    "rf-adult-tfdf": r"SimpleML",
    "tf2-regress-rust": r"ResourceApply",
}
"""What a refusal must mention, by SavedModel. The others of the group port by now: see test_more.py."""


def _entries(*groups: str) -> list[object]:
    pairs = [(recorded, signature) for recorded in catalog(*groups) for signature in recorded.signatures]
    return [
        pytest.param(recorded, signature, id=f"{recorded}-{signature}",
                     marks=[pytest.mark.slow] if recorded.name.startswith(LONG) else [])
        for recorded, signature in pairs if (recorded.name, signature) not in SIDE_EFFECTS | RECORDED_LATER
    ]  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sources of these towers are."""
    return tmp_path_factory.mktemp("written")


def test_the_catalog_is_read() -> None:
    """Guards against a catalogue reader that silently skips entries."""
    folders = {path.parent.name for path in FOLDER.glob("*/saved_model.pb")}
    assert {recorded.name for recorded in catalog()} == folders
    assert all(recorded.signatures for recorded in catalog(FEATURES, EVERY))


@pytest.mark.parametrize("recorded, signature", _entries(FEATURES, EVERY))
def test_equal_to_what_tensorflow_recorded(recorded: Recorded, signature: str, sources: Path) -> None:
    ported = port_tower(read(recorded.path), entry_of(signature))
    report = verify_with_reference(ported, recorded.arrays())
    assert report.passed, "\n".join(report.lines())
    assert report.batches == 1
    assert set(report.outputs) == set(ported.tf_graph.outputs)
    assert_source(ported, sources, f"{recorded}-{signature}")


def test_sources_are_clean(sources: Path) -> None:
    assert_clean(sources / "sources")


@pytest.mark.parametrize("recorded", [item for item in catalog(REFUSE) if item.name in MISSING], ids=str)
def test_refused_for_what_is_missing(recorded: Recorded) -> None:
    with pytest.raises(PortingError, match=MISSING[recorded.name]):
        port_tower(read(recorded.path))


@pytest.mark.parametrize("name, signature", sorted(SIDE_EFFECTS))
def test_training_is_refused(name: str, signature: str) -> None:
    recorded = next(item for item in catalog() if item.name == name)
    with pytest.raises(PortingError, match=re.compile(MISSING[name])):
        port_tower(read(recorded.path), signature)


@pytest.mark.parametrize("name, signature", sorted(RECORDED_LATER))
def test_recorded_after_training(oracle: Oracle, name: str, signature: str) -> None:
    recorded = next(item for item in catalog() if item.name == name)
    report = verify_with_tensorflow(port_tower(read(recorded.path), signature), oracle)
    assert report.passed, "\n".join(report.lines())
