"""The buckets of TF Transform before 0.23: current TensorFlow versions cannot run them, so the expected values come from the old sources."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from porting.conversion.convert import Context, convert
from porting.port import main
from tests.witness import assert_equal
from torch_towers import load
from torch_towers.errors import InputError
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.ops.buckets import buckets_below, buckets_up_to
from torch_towers.program.program import Program

COVERED = ("BucketizeWithInputBoundaries", "BoostedTreesBucketize")
NAN, INF = np.nan, np.inf


def ported(op: str, dtype: str, *operands: Any, count: int = 1) -> Program:
    """The port of a graph of one op, whose first `count` operands are fed."""
    inputs = tuple(TensorSpec(f"x{i}", dtype, (None,)) for i in range(count))
    held = [Node(f"c{i}", "Const", (), {"value": value}) for i, value in enumerate(operands)]
    node = Node("y", op, (*(spec.name for spec in inputs), *(item.name for item in held)))
    outputs = {f"y{i}": f"y:buckets:{i}" if op.startswith("Boosted") else "y" for i in range(count)}
    context = Context(SimpleNamespace(functions={}, variables={}, tables={}))  # type: ignore[arg-type]
    graph, _ = convert(Graph(inputs, (*held, node), outputs), context)
    return Program(graph, context.store)


@pytest.mark.parametrize("dtype, values, edges, expected", [
    ("int32", [1, 2, 3, 4, 5], [3], [0, 0, 1, 1, 1]),  # TensorFlow's own test of the op
    ("int64", [-5, 150, 5, 10000, 10, 100], [0, 10, 100], [0, 3, 1, 3, 2, 3]),  # the example of its documentation
    ("int64", [1, 2, 3], [2.9], [0, 1, 1]),  # boundaries become integers first
    ("float32", [0.5, 0.1, -0.0, NAN, INF, -INF], [0.0, 0.1], [2, 2, 1, 2, 2, 0]),
    ("float64", [0.1, 0.10000000149011612], [0.1], [0, 1]),  # 0.1 is a float32
    ("float32", [1.0], [], [0]),
])  # fmt: skip
def test_up_to_the_boundary(dtype: str, values: list[float], edges: list[float], expected: list[int]) -> None:
    program = ported("BucketizeWithInputBoundaries", dtype, np.array([edges], np.float32))
    (found,) = program(x0=torch.tensor(values, dtype=getattr(torch, dtype))).values()
    assert_equal(found, np.array(expected, np.int32))


def test_below_the_boundary() -> None:
    """The bucket of a value is the first boundary that is not below it; above the last is the last bucket, not one more."""
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 9.0, NAN, INF, -INF])
    first, second = np.array([0, 1, 2], np.float32), np.zeros(0, np.float32)
    found = ported("BoostedTreesBucketize", "float32", first, second, count=2)(x0=values, x1=values)
    assert_equal(found["y0"], np.array([0, 0, 1, 1, 2, 2, 0, 2, 0], np.int32))
    assert_equal(found["y1"], np.zeros(9, np.int32))


def test_boundaries_out_of_order() -> None:
    with pytest.raises(InputError, match="Expected sorted boundaries"):
        buckets_up_to(torch.tensor([1.0]), torch.tensor([2.0, 1.0]))


def test_any_shape() -> None:
    edges = torch.tensor([0.0, 1.0])
    assert buckets_up_to(torch.rand(3, 2, 1).mT, edges).shape == (3, 1, 2)
    assert buckets_below(torch.rand(0), edges).shape == (0,)


def test_what_no_tensorflow_runs_is_ported_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.witness import tf

    class Model(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def serve(self, x: Any) -> dict[str, Any]:
            edges = tf.constant([0.0, 1.0])
            return {"bucket": tf.raw_ops.BoostedTreesBucketize(float_values=[x], bucket_boundaries=[edges])[0]}

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "model"), signatures={"serving_default": model.serve})
    assert main(["--query", str(tmp_path / "model"), "-o", str(tmp_path / "checkpoint")]) == 3
    printed = capsys.readouterr().out
    assert "TensorFlow of today has no kernel for BoostedTreesBucketize" in printed
    assert "give recorded answers with --reference" in printed
    found = load(tmp_path / "checkpoint").query({"x": np.array([0.5, 7, -1], np.float32)})
    assert found["bucket"].tolist() == [1, 1, 0]
