"""One TensorFlow process for the whole test run: it takes seconds to start."""

from __future__ import annotations

import os

os.environ.setdefault(
    "TF_USE_LEGACY_KERAS", "1"
)  # before any test imports TensorFlow: what TFRS needs, whichever test runs first

from collections.abc import Iterator

import pytest

from porting.parity.oracle import Oracle, tensorflow_installed


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """TensorFlow, in its own process."""
    if not tensorflow_installed():
        pytest.skip("TensorFlow is the witness of these tests: install the extra [parity]")
    with Oracle() as running:
        yield running
