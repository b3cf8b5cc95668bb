"""Default values of a signature's inputs match TensorFlow's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_towers
from porting import port
from tests.witness import tf
from torch_towers.formats.npz import to_numpy


def test_left_out_inputs(tmp_path: Path) -> None:
    """A number for all rows, a string for all rows, a vector of floats that is not trained."""
    module = tf.Module()
    specs = [
        tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([], tf.float32, "scale"),
        tf.TensorSpec([], tf.string, "suffix"), tf.TensorSpec([3], tf.float32, "bias"), tf.TensorSpec([1], tf.int64, "step"),
    ]  # fmt: skip

    number, mark = tf.constant(2.5), tf.constant("\xe9")
    vector, seven = tf.constant([1.0, -2.0, 0.0]), tf.constant([7], tf.int64)

    def serve(
        x: Any, scale: Any = number, suffix: Any = mark, bias: Any = vector, step: Any = seven
    ) -> Any:  # fmt: skip
        wide = x[:, None] * scale + bias
        return {"wide": wide, "text": tf.strings.as_string(tf.cast(x, tf.int64) + step) + suffix}

    module.serve = tf.function(serve, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    theirs = module.serve  # a loaded signature wants every input in Python; TensorFlow Serving puts the defaults in
    assert port.main(["--query", str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 0
    towers = torch_towers.load(tmp_path / "out")
    assert towers.query is not None
    assert set(towers.query.defaults) == {"scale", "suffix", "bias", "step"}
    assert not list(towers.query.encoder.parameters())
    for left_out in ({"scale", "suffix", "bias", "step"}, {"suffix", "bias"}, set[str]()):
        given: dict[str, Any] = {"x": [1.0, 2.0], "scale": 3.0, "suffix": "!", "bias": [1.0, 1.0, 1.0], "step": [1]}
        given = {name: value for name, value in given.items() if name not in left_out}
        expected = theirs(
            **{spec.name: tf.constant(given[spec.name], spec.dtype) for spec in specs if spec.name in given}
        )
        found = towers.query(given)
        for name, value in expected.items():
            assert np.array_equal(to_numpy(found[name]), value.numpy())
    towers.save(tmp_path / "again")
    again = torch_towers.load(tmp_path / "again")
    assert np.array_equal(again.encode_query({"x": [1.0]}).numpy(), theirs(x=tf.constant([1.0]))["wide"].numpy())
    with pytest.raises(torch_towers.InputError, match="'x' is missing"):
        towers.query({"scale": 1.0})
