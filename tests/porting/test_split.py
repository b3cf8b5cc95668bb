"""The three stages of a tower: strings and ids before, tensors in the middle, strings that depend on weights after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.saved_model import read
from porting.split import SOURCES
from porting.tower import PortedTower, port_tower
from torch_towers.graph.graph import Graph
from torch_towers.graph.registry import MODULES, OPS

TEXTS = {"text": np.array([b"red", b"blue", b"?"], object), "age": np.float32([1.0, 18.0, 70.0])}


@pytest.fixture(scope="module", params=[True, False], ids=["lifted", "op by op"])
def ported(people: Path, request: pytest.FixtureRequest) -> PortedTower:
    return port_tower(read(people), lifts=request.param)


def stages(graph: Graph) -> set[str]:
    return {
        MODULES[graph.modules[node.attrs["module"]].type].stage if node.op == "module" else OPS[node.op].stage
        for node in graph.nodes
        if node.op not in SOURCES
    }


def weights(graph: Graph) -> set[str]:
    modules = {name for name, spec in graph.modules.items() if spec.type in ("Linear", "Embedding", "Dense")}
    return {node.attrs["tensor"] for node in graph.nodes if node.op == "parameter"} | modules


def test_each_part_has_its_stages(ported: PortedTower) -> None:
    spec = ported.spec
    assert "host" in stages(spec.preprocess)
    assert stages(spec.encoder) == {"tensor"}
    assert spec.postprocess is not None
    assert "host" in stages(spec.postprocess)
    assert weights(spec.encoder)
    assert not weights(spec.preprocess)
    assert not weights(spec.postprocess)


def test_what_decides_an_id_runs_before_the_encoder(ported: PortedTower) -> None:
    """Bucketize: on the encoder's device a float of another precision would be another id."""
    encoder_inputs = {spec.dtype for spec in ported.spec.encoder.inputs}
    assert encoder_inputs <= {"int32", "int64", "float32"}
    assert not any("bucket" in node.op.lower() or "searchsorted" in node.op for node in ported.spec.encoder.nodes)


def test_outputs_come_from_where_they_are(ported: PortedTower) -> None:
    """A string of a weight and the input's own strings after the encoder; tensors, the input's own too, from it."""
    assert set(ported.spec.encoder.outputs) >= {"embedding", "ids", "age"}
    assert ported.spec.postprocess is not None
    assert set(ported.spec.postprocess.outputs) == {"best", "text"}
    found = ported.tower()(TEXTS)
    assert list(found["text"]) == TEXTS["text"].tolist()
    assert found["age"].tolist() == TEXTS["age"].tolist()
    assert found["ids"].tolist() == [1, 3, 0]
    assert set(found["best"].tolist()) <= {b"low", b"mid", b"high"}


def test_the_encoder_exports_with_a_free_batch(ported: PortedTower) -> None:
    tower = ported.tower()
    assert_exports(tower, TEXTS, {"text": TEXTS["text"][:2], "age": TEXTS["age"][:2]})


def assert_exports(tower: Any, *batches: Any) -> None:
    encoder, names = tower.encoder, [spec.name for spec in tower.spec.encoder.inputs]
    inputs = [{name: value for name, value in tower.preprocess(b).items() if name in names} for b in batches]
    with torch.no_grad():
        free = {name: {0: torch.export.Dim.DYNAMIC} for name in names}
        program = torch.export.export(encoder, (), kwargs=inputs[0], dynamic_shapes=free, strict=False).module()
        for batch in inputs:
            expected = encoder(**batch)
            for name, value in program(**batch).items():  # sums of some tens of numbers of order 1, in another order
                torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)


def saved(folder: Path, function: Callable[[Any, Any], Any], *, lifts: bool = True) -> tuple[PortedTower, Any]:
    from tests.witness import tf

    module = tf.Module()
    keys, values = tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)
    module.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)
    module.w = tf.Variable(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), name="w")
    specs = [tf.TensorSpec([None], tf.string, "text")]
    serve = tf.function(lambda text: {"y": function(module, text)}, input_signature=specs)
    tf.saved_model.save(module, str(folder), signatures=serve)
    return port_tower(read(folder), lifts=lifts), serve


LETTERS = [np.array(list(text), "S1").astype(object) for text in ("abz", "a", "bbbbbaz")]


def assert_as_tensorflow(ported: PortedTower, serve: Any) -> None:
    tower = ported.tower()
    for letters in LETTERS:
        with torch.inference_mode():
            np.testing.assert_allclose(tower({"text": letters})["y"].numpy(), serve(letters)["y"].numpy(), rtol=1e-6)


def test_sizes_of_strings_are_read_from_a_tensor_in_the_encoder(tmp_path: Path) -> None:
    """A batch size given as an integer would be a constant of the exported encoder."""
    from tests.witness import tf

    def function(module: Any, text: Any) -> Any:
        n = tf.shape(text)[0]
        rows = tf.gather(module.w, module.table.lookup(text))
        return tf.reshape(rows, [n * 2, 2]) + tf.reduce_sum(module.w) * tf.zeros([n * 2, 2])

    ported, serve = saved(tmp_path / "model", function)
    assert [spec.dtype for spec in ported.spec.encoder.inputs] == ["int64"]
    assert_as_tensorflow(ported, serve)
    assert_exports(ported.tower(), *({"text": letters} for letters in (LETTERS[0], LETTERS[2])))


def test_a_size_that_no_tensor_has_crosses_as_an_integer(tmp_path: Path) -> None:
    from tests.witness import tf

    ported, serve = saved(tmp_path / "model", lambda m, text: tf.reduce_sum(m.w) + tf.zeros([tf.shape(text)[0], 2]))
    assert [spec.dtype for spec in ported.spec.encoder.inputs] == ["size"]
    assert_as_tensorflow(ported, serve)


def test_weights_and_tables_inside_branches(tmp_path: Path) -> None:
    """A branch that looks up a word runs before the encoder, one that holds a weight in it, a string of that after it."""
    from tests.witness import tf

    def function(module: Any, text: Any) -> Any:
        some = tf.size(text) > 1
        ids = tf.cond(some, lambda: module.table.lookup(text), lambda: tf.zeros_like(text, tf.int64))
        rows = tf.cond(some, lambda: tf.gather(module.w, ids), lambda: 2 * tf.gather(module.w, ids))
        return tf.strings.to_number(tf.as_string(tf.argmax(rows, 1)))

    for lifts in (True, False):
        ported, serve = saved(tmp_path / str(lifts), function, lifts=lifts)
        conditions = [
            {node.op for node in part.nodes}
            for part in (ported.spec.preprocess, ported.spec.encoder)
            if part is not None
        ]
        assert all("cond" in ops for ops in conditions)
        assert ported.spec.postprocess is not None
        assert "as_string" in {node.op for node in ported.spec.postprocess.nodes}
        assert_as_tensorflow(ported, serve)


def test_ids_that_are_read_twice_cross_once(tmp_path: Path) -> None:
    """By two lookups, each of which checks them, and by what compares them with 0."""
    from tests.witness import tf

    def function(module: Any, text: Any) -> Any:
        ids = module.table.lookup(text)
        rows = tf.gather(module.w, ids) + tf.gather(module.w[:, ::-1], ids)
        return rows * tf.cast(ids != 0, tf.float32)[:, None]

    ported, serve = saved(tmp_path / "model", function)
    assert [spec.dtype for spec in ported.spec.encoder.inputs] == ["int64"]
    assert_as_tensorflow(ported, serve)
