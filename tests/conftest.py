"""What all tests share: one TensorFlow process, which takes seconds to start, and the settings of hypothesis."""

from __future__ import annotations

import os

# Before any test imports TensorFlow, whichever runs first: without oneDNN it computes as its kernels are written, and TFRS needs Keras 2.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from porting.parity.oracle import Oracle
from porting.parity.process import tensorflow_installed
from tests.afresh import start_afresh

# Machines are shared: how long an example took says nothing about the code.
settings.register_profile("shared machines", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machines")


@pytest.fixture(autouse=True)
def afresh() -> None:
    """No test sees which others ran before it."""
    start_afresh()


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """TensorFlow, in its own process."""
    if not tensorflow_installed():
        pytest.skip("TensorFlow is the witness of these tests: install the extra [parity]")
    with Oracle() as running:
        yield running
