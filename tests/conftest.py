"""One TensorFlow process for the whole test run: it takes seconds to start."""

from __future__ import annotations

import os

# Before any test imports TensorFlow, whichever runs first: without oneDNN it computes as its kernels are written, and TFRS needs Keras 2.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from collections.abc import Iterator

import pytest

from porting.parity.oracle import Oracle
from porting.parity.process import tensorflow_installed


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """TensorFlow, in its own process."""
    if not tensorflow_installed():
        pytest.skip("TensorFlow is the witness of these tests: install the extra [parity]")
    with Oracle() as running:
        yield running
