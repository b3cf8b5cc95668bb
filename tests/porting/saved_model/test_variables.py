"""Variables are TensorFlow's, to the bit, whole ones and partitioned ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from porting.saved_model import read
from tests.porting.saved_model.conftest import WORDS
from tests.porting.saved_model.test_model import bits


def test_variables_of_a_module(module_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    model = read(module_path)
    loaded = tf.saved_model.load(str(module_path))
    found = {variable.checkpoint_key.split("/.ATTRIBUTES")[0]: variable for variable in model.variables.values()}
    expected = {f"dtypes/{name}": value for name, value in loaded.dtypes.items()}
    expected |= {
        name: getattr(loaded, name) for name in ("strings", "scalar", "empty", "unnamed", "unused", "twin_a", "twin_b")
    }
    assert set(found) == set(expected)
    for name, theirs in expected.items():
        ours = found[name]
        assert (ours.dtype, ours.shape, ours.trainable) == (theirs.dtype.name, tuple(theirs.shape), theirs.trainable)
        value = ours.numpy() if ours.dtype == "string" else ours.tensor()
        assert bits(value) == bits(theirs.numpy())
    names = {name: variable.name for name, variable in found.items()}
    assert names["scalar"] == "scalar"
    assert names["unnamed"] == "unnamed"  # TensorFlow calls it Variable, the object graph knows better
    assert {model.variables["twin"].checkpoint_key[:6], model.variables["twin_1"].checkpoint_key[:6]} == {
        "twin_a",
        "twin_b",
    }
    assert model.variables["words"].numpy().tolist() == WORDS


def test_partitioned_variables_hold_their_rows(graph_path: Path) -> None:
    tf1 = pytest.importorskip("tensorflow").compat.v1
    whole = tf1.train.load_checkpoint(str(graph_path / "variables" / "variables")).get_tensor("parts")
    model = read(graph_path)
    parts = [model.variables[f"parts/part_{i}"] for i in range(3)]
    assert np.concatenate([part.numpy() for part in parts]).tobytes() == whole.tobytes()
    assert torch.cat([part.tensor() for part in parts]).numpy().tobytes() == whole.tobytes()
