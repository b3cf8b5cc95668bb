"""Towers written by their real producers: each function writes one SavedModel into a folder."""

import pytest

for _package in ("tensorflow", "tf_keras", "keras"):
    pytest.importorskip(_package, reason="TensorFlow writes these towers: install what requirements-parity.txt names")
