"""The precision of each output by dataflow: inputs and weights do not round, computations do, decisions reset it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from porting.flat_graph.flatten import flatten
from porting.parity.precision import precisions
from porting.saved_model import read
from tests.witness import tf


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    module = tf.Module()
    module.weight = tf.Variable(np.ones((4, 4), np.float32), name="weight")

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")])
    def serve(x: Any) -> dict[str, Any]:
        wide, half = tf.cast(x, tf.float64), tf.cast(x, tf.float16)
        product = x @ module.weight
        return {
            "input": tf.gather(x, [0], axis=1),
            "of the input": wide * 0.1,
            "back": tf.cast(wide * 0.1, tf.float32),
            "of a product": tf.cast(product, tf.float64) * 0.1,
            "of halves": tf.cast(half * half, tf.float32) + x,
            "behind a decision": tf.cast(tf.cast(product > 0.0, tf.int32), tf.float64) * 0.1,
            "of a branch": tf.cond(tf.size(x) > 4, lambda: tf.cast(x * 2.0, tf.float64), lambda: wide),
        }

    module.serve = serve
    path = tmp_path_factory.mktemp("precision") / "model"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    model = read(path)
    return precisions(flatten(model.graph("serving_default"), model.functions), model.functions)


@pytest.mark.parametrize("output, expected", {
    "input": None, "of the input": "float64", "back": "float32", "of a product": "float32", "of halves": "float16",
    "behind a decision": "float64", "of a branch": "float32",
}.items())  # fmt: skip
def test_an_output_is_as_exact_as_the_coarsest_rounding_on_its_way(
    found: dict[str, str], output: str, expected: str
) -> None:
    assert found.get(output) == expected
