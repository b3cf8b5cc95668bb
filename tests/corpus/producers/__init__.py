"""Towers as their producers write them: each function writes one SavedModel into the folder that it is given."""

import pytest

for _package in ("tensorflow", "tf_keras", "keras"):
    pytest.importorskip(_package, reason="TensorFlow writes these towers: install what requirements-parity.txt names")
