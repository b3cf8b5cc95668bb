"""JSON documents, parsed in the graph by a private op: the graph is cut after it, and TensorFlow runs the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_towers
from porting import port
from porting.errors import PortingError
from porting.saved_model import protos, read
from porting.tower import port_tower
from tests.witness import tf

GENRES = ["action", "comedy", "drama"]
OP = "TwoTower>ParseDocuments"
DOCUMENTS = [
    {"data": '{"user_id": ["1"], "genres": ["drama", "action"], "ratings": [7.5, "6"], "elsewhere": [1]}', "key": "a"},
    {"data": '{"user_id": ["2"], "genres": ["comedy", "nothing"], "ratings": [0, -1.25]}', "key": "b"},
]
SCHEMA = {
    "query": {
        "genres": {"feature_type": "Categorical", "config": {"vocab": GENRES}},
        "ratings": {"feature_type": "Vector", "config": {"length": 2}},
        "user_id": {"feature_type": "Id", "config": {"num_buckets": 16}},
    },
    "candidate": {"movie": {"feature_type": "Text"}},
}


class Towers(tf.Module):
    """A tower as the algorithm trains them: a hashed id, a vocabulary, numbers, a dense layer; the key goes through."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.users = tf.Variable(rng.normal(size=(16, 4)).astype(np.float32))
        self.words = tf.Variable(rng.normal(size=(4, 4)).astype(np.float32))
        self.dense = tf.Variable(rng.normal(size=(10, 5)).astype(np.float32))
        keys = tf.lookup.KeyValueTensorInitializer(GENRES, tf.range(3, dtype=tf.int64))
        self.table = tf.lookup.StaticVocabularyTable(keys, 1)

    def encode(self, user_id: Any, genres: Any, ratings: Any) -> Any:
        user = tf.gather(self.users, tf.strings.to_hash_bucket_fast(user_id, 16))
        words = tf.reduce_mean(tf.gather(self.words, self.table.lookup(genres)), 1)
        return tf.nn.relu(tf.concat([user, words, ratings], 1) @ self.dense)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "data"), tf.TensorSpec([None], tf.string, "key")])
    def serve(self, data: Any, key: Any) -> Any:
        features = {
            "genres": tf.io.FixedLenFeature([2], tf.string), "ratings": tf.io.FixedLenFeature([2], tf.float32),
            "user_id": tf.io.FixedLenFeature([], tf.string),
        }  # fmt: skip
        parsed = tf.io.parse_example(data, features)
        return {"encoding": self.encode(**parsed), "key": tf.identity(key)}


def export(folder: Path, names: str) -> Towers:
    """Saves the tower and replaces the parser by a foreign op. `names`: the source of the features' names."""
    towers = Towers()
    tf.saved_model.save(towers, str(folder), signatures=towers.serve)
    path = folder / "saved_model.pb"
    saved = protos.parse("SavedModel", path.read_bytes(), "test")
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == "ParseExampleV2":
                data, keys = node.input[0], node.input[3]
                node.op = OP
                node.input[:] = [data, keys] if names == "operand" else [data]
                shapes = node.attr["_output_shapes"]
                kept = shapes.SerializeToString()
                node.attr.clear()
                if names == "attribute":
                    node.attr["features"].list.s.extend([b"genres", b"ratings", b"user_id"])
                    node.attr["types"].list.type.extend([7, 1, 7])
                if names != "schema":
                    node.attr["_output_shapes"].ParseFromString(kept)
    path.write_bytes(saved.SerializeToString())
    return towers


@pytest.mark.parametrize("names", ["attribute", "operand", "schema"])
def test_cut_behind_the_parser(tmp_path: Path, names: str, capsys: Any) -> None:
    """The command detects the cut, TensorFlow runs the rest, and the port reads the documents."""
    towers = export(tmp_path / "query_model", names)
    with pytest.raises(Exception, match="TwoTower>ParseDocuments"):
        tf.saved_model.load(str(tmp_path / "query_model"))
    (tmp_path / "input_schema.json").write_text(json.dumps(SCHEMA))
    schema = ["--input-schema", str(tmp_path / "input_schema.json")] if names == "schema" else []
    assert port.main(["--query", str(tmp_path / "query_model"), "-o", str(tmp_path / "out"), *schema]) == 0
    said = capsys.readouterr().out
    assert f"cut after {OP}" in said and "'user_id' (string)" in said and "ok   encoding" in said
    ported = torch_towers.load(tmp_path / "out")
    assert ported.query is not None
    assert {spec.name for spec in ported.query.inputs} == {"key", "user_id", "genres", "ratings"}
    expected = towers.encode(
        tf.constant(["1", "2"]),
        tf.constant([["drama", "action"], ["comedy", "nothing"]]), tf.constant([[7.5, 6.0], [0.0, -1.25]]),
    ).numpy()  # fmt: skip
    by_documents = ported.query(DOCUMENTS)
    assert np.allclose(by_documents["encoding"].numpy(), expected, rtol=1e-6, atol=1e-6)
    assert by_documents["key"].tolist() == [b"a", b"b"]
    columns = {"data": [row["data"] for row in DOCUMENTS], "key": ["a", "b"]}
    assert np.array_equal(ported.query(columns)["encoding"].numpy(), by_documents["encoding"].numpy())
    assert np.array_equal(ported.encode_query(DOCUMENTS).numpy(), by_documents["encoding"].numpy())


def test_the_cut_can_be_named(tmp_path: Path) -> None:
    """`--cut` takes an op or a node of any graph; an unknown one is refused."""
    towers = export(tmp_path, "attribute")
    model = read(tmp_path)
    assert {spec.name for spec in port_tower(model, cut_behind=OP).spec.inputs} == {
        "key",
        "user_id",
        "genres",
        "ratings",
    }
    dense = port_tower(model, cut_behind="concat").tower()
    assert [spec.dtype for spec in dense.inputs] == ["string", "float32"]
    x = np.random.default_rng(5).normal(size=(3, 10)).astype(np.float32)
    names = [spec.name for spec in dense.inputs]
    found = dense(dict(zip(names, [["a", "b", "c"], x], strict=True)))["encoding"].numpy()
    assert np.allclose(found, tf.nn.relu(x @ towers.dense).numpy(), rtol=1e-6, atol=1e-6)
    with pytest.raises(PortingError, match="no op or node 'Nowhere'"):
        port_tower(model, cut_behind="Nowhere")


def test_an_op_behind_weights_is_not_cut(tmp_path: Path) -> None:
    """An op without converter that looks at a weight is no parser: it is refused by name."""
    module = tf.Module()
    module.weight = tf.Variable([[1.0, 2.0]])
    module.serve = tf.function(lambda x: tf.nn.elu(x @ module.weight), input_signature=[tf.TensorSpec([None, 1])])
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    path = tmp_path / "saved_model.pb"
    saved = protos.parse("SavedModel", path.read_bytes(), "test")
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = "Foreign" if node.op == "Elu" else node.op
    path.write_bytes(saved.SerializeToString())
    with pytest.raises(PortingError, match=r"no converter: Foreign \(x1\)"):
        port_tower(read(tmp_path))
