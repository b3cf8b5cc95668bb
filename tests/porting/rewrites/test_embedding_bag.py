"""Embeddings of sparse ids, added up: one layer, TensorFlow's numbers to the bit, and what is written otherwise stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.witness import tf
from torch_towers.errors import InputError

RNG = np.random.default_rng(6)


def table(rows: int = 9) -> Any:
    return tf.Variable(RNG.normal(size=(rows, 5)).astype(np.float32))


class Lookups(tf.Module):
    """Lookups of one sparse tensor, as TensorFlow's own functions spell them, and some that only look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.sum, self.sqrtn, self.plain, self.other, self.both, self.wide = (table() for _ in range(7))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.int64, "indices"), tf.TensorSpec([None], tf.int64, "values"), tf.TensorSpec([2], tf.int64, "shape"),
        ]
    )  # fmt: skip
    def serve(self, indices: Any, values: Any, shape: Any) -> Any:
        ids = tf.sparse.SparseTensor(indices, values, shape)
        safe = tf.nn.safe_embedding_lookup_sparse
        known = tf.sparse.SparseTensor(indices, tf.math.floormod(values, 9), shape)
        rows = tf.sparse.SparseTensor(tf.pad(indices, [[0, 0], [1, 0]]), values, tf.concat([[1], shape], 0))
        return {
            **{name: safe(getattr(self, name), ids, combiner=name) for name in ("mean", "sum", "sqrtn")},
            "plain": tf.nn.embedding_lookup_sparse(self.plain, known, None, combiner="mean"),
            "other": safe(self.other, ids, default_id=3, combiner="mean"),
            "both_mean": safe(self.both, ids, combiner="mean"), "both_sum": safe(self.both, ids, combiner="sum"),
            "wide": safe(self.wide, rows, combiner="mean"),
        }  # fmt: skip


@pytest.fixture(scope="module")
def lookups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lookups, PortedTower]:
    module = Lookups()
    folder = tmp_path_factory.mktemp("lookups") / "model"
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return module, port_tower(read(folder))


def test_what_becomes_a_layer(lookups: tuple[Lookups, PortedTower]) -> None:
    spec = lookups[1].spec
    modes = {
        name: module.args["mode"] for name, module in spec.encoder.modules.items() if module.type == "EmbeddingBag"
    }
    assert modes == {
        "mean": "mean",
        "sum": "sum",
        "sqrtn": "sqrtn",
        "plain": "mean",
        "other": "mean",
        "both": "mean",
        "wide": "mean",
    }
    assert {spec.encoder.outputs[name] for name in ("mean", "sum", "sqrtn", "plain")} == {
        "mean",
        "sum",
        "sqrtn",
        "plain",
    }
    before = [node.op for node in spec.preprocess.nodes]
    assert before.count("sparse_bags") == 2, "one for the lookups that share their ids, one for those of three axes"
    assert before.count("sparse_fill_empty_rows") == 1, "of the lookup with a default"
    assert "unique" not in before


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 8), max_size=14), min_size=1, max_size=4), st.booleans())
def test_numbers(lookups: tuple[Lookups, PortedTower], rows: list[list[int]], shuffled: bool) -> None:
    """Rows of any length, empty ones and negative ids among them; TensorFlow takes rows in any order where it fills them up."""
    module, ported = lookups
    pairs = [([i, j], value) for i, row in enumerate(rows) for j, value in enumerate(row)]
    if shuffled:
        RNG.shuffle(pairs)  # type: ignore[arg-type]
    inputs = {
        "indices": np.array([place for place, _ in pairs], np.int64).reshape(-1, 2),
        "values": np.array([value for _, value in pairs], np.int64), "shape": np.array([len(rows), 14]),
    }  # fmt: skip
    try:
        expected = module.serve(**{name: tf.constant(value) for name, value in inputs.items()})
    except tf.errors.InvalidArgumentError:  # the plain lookup wants them in order
        with pytest.raises(InputError):
            ported.tower()(inputs)
        return
    found = ported.tower()(inputs)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), value.numpy(), err_msg=name)


def test_gradients(lookups: tuple[Lookups, PortedTower]) -> None:
    tower = lookups[1].tower().train()
    inputs = {"indices": np.array([[0, 0], [0, 1], [2, 0]]), "values": np.array([1, 1, 4]), "shape": np.array([3, 2])}
    tower(inputs)["sum"].sum().backward()
    expected = torch.zeros(9, 5)
    expected[1], expected[4] = 2, 1
    assert torch.equal(tower.encoder.get_parameter("sum.weight").grad, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", [{"values": np.array([1, 9, 2])}, {"indices": np.array([[0, 0], [3, 0], [1, 0]])}])
def test_what_is_refused(lookups: tuple[Lookups, PortedTower], inputs: dict[str, Any]) -> None:
    good = {"indices": np.array([[0, 0], [0, 1], [2, 0]]), "values": np.array([1, 1, 4]), "shape": np.array([3, 2])}
    with pytest.raises(tf.errors.InvalidArgumentError):
        lookups[0].serve(**{name: tf.constant(value) for name, value in {**good, **inputs}.items()})
    with pytest.raises(InputError):
        lookups[1].tower()({**good, **inputs})
