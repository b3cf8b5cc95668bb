"""Tables in parts: one table, TensorFlow's rows and gradients, and what is distributed otherwise stays."""

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
from torch_towers.parity.answers import answer

RNG = np.random.default_rng(8)
PARTS = {
    "mod": (4, 4, 3), "div": (4, 4, 3), "even_mod": (4, 4), "even_div": (4, 4), "shared": (2, 2, 1, 1), "matrix": (3, 2),
    "sparse_mod": (4, 3), "sparse_div": (4, 3), "both": (4, 3), "uneven": (3, 4), "elsewhere": (4, 3), "clipped": (4, 4, 3),
}  # fmt: skip
"""The rows of each table's parts."""


class Lookups(tf.Module):
    """Lookups in lists of variables, as TensorFlow's own functions spell them, and some that only look alike."""

    def __init__(self) -> None:
        super().__init__()
        for table, parts in PARTS.items():
            for i, rows in enumerate(parts):
                value = RNG.normal(size=(rows, 2, 2) if table == "matrix" else (rows, 3)).astype(np.float32)
                setattr(self, f"{table}_{i}", tf.Variable(value, name=f"{table}/part_{i}"))

    def parts(self, table: str) -> list[Any]:
        return [getattr(self, f"{table}_{i}") for i in range(len(PARTS[table]))]

    def lookup(self, table: str, ids: Any, strategy: str) -> Any:
        return tf.compat.v1.nn.embedding_lookup(
            self.parts(table), tf.math.floormod(ids, sum(PARTS[table])), partition_strategy=strategy
        )

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int64, "ids"), tf.TensorSpec([None], tf.int32, "flat")])
    def serve(self, ids: Any, flat: Any) -> Any:
        filled = tf.sparse.from_dense(ids)
        sparse = tf.sparse.SparseTensor(filled.indices, tf.math.floormod(filled.values, 7), filled.dense_shape)
        pooled = tf.compat.v1.nn.safe_embedding_lookup_sparse
        return {
            "mod": self.lookup("mod", ids, "mod"), "div": self.lookup("div", ids, "div"),
            "even_mod": self.lookup("even_mod", flat, "mod"), "even_div": self.lookup("even_div", flat, "div"),
            "shared_1": self.lookup("shared", ids, "div"), "shared_2": self.lookup("shared", flat, "div"),
            "matrix": self.lookup("matrix", ids, "mod"),
            "sparse_mod": pooled(self.parts("sparse_mod"), sparse, combiner="mean", partition_strategy="mod"),
            "sparse_div": pooled(self.parts("sparse_div"), sparse, combiner="sum", partition_strategy="div"),
            "both_1": self.lookup("both", ids, "div"), "both_2": self.lookup("both", ids, "mod"),
            "uneven": tf.compat.v1.nn.embedding_lookup(self.parts("uneven"), tf.math.floormod(ids, 6), partition_strategy="mod"),
            "elsewhere": self.lookup("elsewhere", ids, "mod") + self.elsewhere_1[0],
            "clipped": tf.compat.v1.nn.embedding_lookup(self.parts("clipped"), tf.math.floormod(ids, 11), partition_strategy="div", max_norm=1.0),
        }  # fmt: skip

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids")])
    def unchecked(self, ids: Any) -> Any:
        return {
            strategy: tf.compat.v1.nn.embedding_lookup(self.parts(strategy), ids, partition_strategy=strategy)
            for strategy in ("mod", "div")
        }


@pytest.fixture(scope="module")
def lookups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lookups, PortedTower, PortedTower]:
    module = Lookups()
    folder = tmp_path_factory.mktemp("partitions") / "model"
    tf.saved_model.save(module, str(folder), signatures={"serve": module.serve, "unchecked": module.unchecked})
    saved = read(folder)
    return module, port_tower(saved, "serve"), port_tower(saved, "unchecked")


def test_what_becomes_one_table(lookups: tuple[Lookups, PortedTower, PortedTower]) -> None:
    encoder = lookups[1].spec.encoder
    layers = {name: spec.type for name, spec in encoder.modules.items() if "part_" not in name}
    one = ("mod", "div", "even_mod", "even_div", "shared", "both", "clipped")
    assert (
        layers.items()
        >= {**dict.fromkeys(one, "Embedding"), "sparse_mod": "EmbeddingBag", "sparse_div": "EmbeddingBag"}.items()
    )
    assert layers.keys().isdisjoint({"uneven", "elsewhere"})
    assert encoder.modules["mod"].args == {"num_embeddings": 11, "embedding_dim": 3}
    stitched = [node.name for node in encoder.nodes if node.op == "dynamic_stitch"]
    assert len(stitched) == 2, "uneven and elsewhere"
    weights = lookups[1].tower().encoder.state_dict()
    assert weights["matrix.weight"].shape == (5, 2, 2)
    assert not any(
        name.startswith(f"{table}.part_") for name in weights for table in (*one, "matrix", "sparse_mod", "sparse_div")
    )


@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.tuples(*[st.integers(0, 2**40)] * 2, st.integers(0, 2**20)), max_size=9))
def test_rows_are_tensorflows(lookups: tuple[Lookups, PortedTower, PortedTower], rows: list[Any]) -> None:
    module, ported, _ = lookups
    batch = {"ids": np.int64([row[:2] for row in rows]).reshape(-1, 2), "flat": np.int32([row[2] for row in rows])}
    expected = module.serve(**{name: tf.constant(value) for name, value in batch.items()})
    found = answer(ported.tower(), batch)
    assert isinstance(found, dict)
    for name, value in expected.items():
        if name == "clipped":  # clipped by norms, which are sums
            np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value.numpy(), err_msg=name)


@pytest.mark.parametrize("strategy", ["mod", "div"])
@pytest.mark.parametrize("outside", [-1, -12, 11, 12, 2**40])
def test_ids_outside_are_refused_as_by_tensorflow(
    lookups: tuple[Lookups, PortedTower, PortedTower], strategy: str, outside: int
) -> None:
    module, _, ported = lookups
    ids = np.int64([3, outside])
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.compat.v1.nn.embedding_lookup(module.parts(strategy), ids, partition_strategy=strategy)
    with pytest.raises(InputError, match=str(outside)):
        ported.tower()({"ids": ids})


def test_ids_are_checked_once_for_all_tables_of_their_size(lookups: tuple[Lookups, PortedTower, PortedTower]) -> None:
    checked, unchecked = lookups[1].spec, lookups[2].spec
    assert [node.op for node in unchecked.preprocess.nodes] == ["in_range"]
    ids = next(node for node in checked.encoder.nodes if node.attrs.get("module") == "mod").inputs[0]
    ops = {node.name: node.op for node in checked.encoder.nodes}
    assert ops[str(ids)] == "floor_mod", "ids modulo the size of a table are in it"


def test_gradients_are_tensorflows(lookups: tuple[Lookups, PortedTower, PortedTower]) -> None:
    module, ported, _ = lookups
    batch = {"ids": np.int64([[0, 10], [4, 4], [7, 2]]), "flat": np.int32([1, 5, 0])}
    names = ("mod", "div", "shared_1", "shared_2", "matrix")
    tower = ported.tower()
    outputs = tower.encoder(**tower.preprocess(batch))
    torch.stack([outputs[name].square().sum() for name in names]).sum().backward()
    ours = dict(tower.encoder.named_parameters())
    tables = {"mod": "mod", "div": "div", "shared": "div", "matrix": "mod"}
    variables = {table: module.parts(table) for table in tables}
    with tf.GradientTape() as tape:
        expected = module.serve(**{name: tf.constant(value) for name, value in batch.items()})
        loss = tf.add_n([tf.reduce_sum(expected[name] ** 2) for name in names])
    for table, found in tape.gradient(loss, variables).items():
        shape = (sum(PARTS[table]), *variables[table][0].shape[1:])
        joined = np.zeros(shape, np.float32)
        first = 0
        for i, gradient in enumerate(found):
            rows = slice(i, None, len(found)) if tables[table] == "mod" else slice(first, first + PARTS[table][i])
            joined[rows] = tf.convert_to_tensor(gradient).numpy()
            first += PARTS[table][i]
        gradient = ours[f"{table}.weight"].grad
        assert gradient is not None
        np.testing.assert_allclose(gradient.numpy(), joined, rtol=1e-5, atol=1e-6, err_msg=table)
