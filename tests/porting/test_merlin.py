"""Towers of Merlin Models: integer ids, ragged features as `name__values` and `name__offsets`, pooled embeddings, a unit norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_towers
from porting import port
from tests.witness import tf
from torch_towers.errors import InputError


class QueryTower(tf.Module):
    """The graph of a query encoder: `safe_embedding_lookup_sparse` on ragged ids, an id, a number; L2Norm with epsilon 1e-12."""

    def __init__(self, combiner: str) -> None:
        super().__init__()
        rng = np.random.default_rng(4)
        self.combiner = combiner
        self.genres = tf.Variable(rng.normal(size=(11, 4)).astype(np.float32))
        self.users = tf.Variable(rng.normal(size=(7, 3)).astype(np.float32))
        self.dense = tf.Variable(rng.normal(size=(8, 5)).astype(np.float32))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "genres__values"), tf.TensorSpec([None], tf.int32, "genres__offsets"),
            tf.TensorSpec([None, 1], tf.int64, "user_id"), tf.TensorSpec([None, 1], tf.float32, "age"),
        ]
    )  # fmt: skip
    def serve(self, genres__values: Any, genres__offsets: Any, user_id: Any, age: Any) -> Any:
        ragged = tf.RaggedTensor.from_row_splits(genres__values, tf.cast(genres__offsets, tf.int64))
        pooled = tf.nn.safe_embedding_lookup_sparse(self.genres, ragged.to_sparse(), combiner=self.combiner)
        user = tf.squeeze(tf.gather(self.users, user_id), 1)
        x = tf.nn.relu(tf.concat([pooled, user, age], 1) @ self.dense)
        return {"output_1": tf.math.l2_normalize(x, axis=1, epsilon=1e-12)}


@pytest.mark.parametrize("combiner", ["mean", "sum", "sqrtn"])
def test_query_tower(tmp_path: Path, combiner: str) -> None:
    """Ported, equal, and run on rows of different lengths, an empty one among them."""
    tower = QueryTower(combiner)
    tf.saved_model.save(tower, str(tmp_path / "query_tower"), signatures=tower.serve)
    assert port.main(["--query", str(tmp_path / "query_tower"), "-o", str(tmp_path / "out")]) == 0
    towers = torch_towers.load(tmp_path / "out")
    inputs = {
        "genres__values": np.array([1, 10, 3, 3, 0]), "genres__offsets": np.array([0, 2, 2, 5], np.int32),
        "user_id": np.array([[6], [0], [2]]), "age": np.array([[1.5], [0.0], [-2.0]], np.float32),
    }  # fmt: skip
    expected = tower.serve(**{name: tf.constant(value) for name, value in inputs.items()})["output_1"].numpy()
    found = towers.encode_query(inputs)
    assert np.allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert np.array_equal(
        towers.encode_query(inputs, batch_size=2).numpy(), found.numpy()
    )  # parts of ragged values are not cut
    with pytest.raises(InputError, match="give columns"):
        towers.encode_query([{name: value[0] for name, value in inputs.items()}])
