"""SavedModels that TensorFlow writes once per test run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.saved_model import protos

WORDS = [b"one", b"two \xc3\xa9", b"", b"\xff\x00", b"x" * 300]


@pytest.fixture(scope="session")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tf.Module: variables of every dtype, tables of several dtypes from constants and from a file, functions with structures."""
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("module")
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_bytes(b"red\r\ngreen\n blue \n\xff\xfe")

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            values = np.arange(6).reshape(2, 3)
            names = "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128"
            self.dtypes = {
                name: tf.Variable(tf.cast(values, name), name=f"of_{name}", trainable=name == "float32")
                for name in names.split()
            }
            self.strings = tf.Variable(WORDS, name="words")
            self.scalar = tf.Variable(np.float32(1.5), name="scalar")
            self.empty = tf.Variable(np.zeros([0, 3], np.float32), name="empty")
            self.unnamed = tf.Variable([1.0, 2.0])
            self.unused = tf.Variable([3.0], name="unused")
            self.twin_a, self.twin_b = tf.Variable(1.0, name="twin"), tf.Variable(2.0, name="twin")
            self.from_file = tf.lookup.StaticHashTable(
                tf.lookup.TextFileInitializer(str(vocabulary), tf.string, -2, tf.int64, -1), -1
            )
            pairs = {
                "string_float": (["a", "b"], np.float32([0.5, -1])),
                "int_string": (np.int64([5, -7]), ["five", "\0"]),
                "int_double": (np.int32([1, 2]), np.float64([0.1, 0.2])),
                "string_bool": (["t", "f"], [True, False]),
            }
            self.tables = {}
            for name, (keys, table_values) in pairs.items():
                initializer = tf.lookup.KeyValueTensorInitializer(keys, table_values)
                default = (
                    np.zeros([], initializer.value_dtype.as_numpy_dtype) if initializer.value_dtype != tf.string else ""
                )
                self.tables[name] = tf.lookup.StaticHashTable(initializer, default)
            self.mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
            self.mutable.insert(["m", "n"], np.int64([7, 8]))
            self.constant = tf.constant([1.0, 2.0, 3.0])

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            total = tf.add_n(
                [tf.cast(tf.reduce_sum(tf.cast(v, tf.complex128)), tf.complex64) for n, v in self.dtypes.items()]
            )
            found = self.from_file.lookup(tf.constant(["red"])) + self.mutable.lookup(tf.constant(["m"]))
            found = tf.cast(found, tf.float32) + self.tables["string_float"].lookup(tf.constant("a"))
            y = tf.concat(
                [x + self.scalar + self.unnamed + self.twin_a - self.twin_b, tf.reshape(self.empty, [0, 2])], 0
            )
            return {"y": y + found, "words": tf.identity(self.strings), "total": total}

        @tf.function(
            input_signature=[
                {"b": tf.TensorSpec([None], tf.int64), "a": tf.TensorSpec([], tf.string)},
                tf.RaggedTensorSpec([None, None], tf.int64),
            ]
        )
        def structured(self, features: Any, ragged: Any) -> Any:
            looked = self.tables["int_string"].lookup(features["b"])
            return {"ragged": ragged + 1, "pair": (looked, self.constant), "sparse": tf.sparse.from_dense([[1, 0]])}

        @tf.function
        def traced(self, x: Any) -> Any:
            return x * 2

        @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.float32)])
        def __call__(self, ragged: Any) -> Any:
            return ragged * self.scalar

    module = Module()
    module.traced(tf.constant([1.0]))
    module.traced(tf.constant([1], tf.int64))
    path = folder / "saved"
    tf.saved_model.save(module, str(path), signatures={"serve": module.serve})
    return path


@pytest.fixture(scope="session")
def keras_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tf_keras model with lookups, saved whole: optimizer slots, training functions and all."""
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("tf_keras")
    name = keras.Input([], dtype=tf.string, name="name")
    lookup = keras.layers.StringLookup(vocabulary=["a", "b", "c"], mask_token=None)
    embedded = keras.layers.Embedding(lookup.vocabulary_size(), 4)(lookup(name))
    text = keras.layers.TextVectorization(output_sequence_length=3)
    text.adapt(["blue sky", "blue sea"])
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(text.vocabulary_size(), 4)(text(name)))
    model = keras.Model(name, keras.layers.Dense(2, name="head")(embedded + pooled))
    model.compile("adam", "mse")
    model.fit(tf.constant(["a", "b"]), np.zeros([2, 2]), verbose=0)
    path = tmp_path_factory.mktemp("tf_keras") / "saved"
    model.save(str(path))
    return path


@pytest.fixture(scope="session")
def keras3_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras 3 model, exported."""
    tf = pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    number = keras.Input([3], name="number")
    hidden = keras.layers.Dense(4, activation="relu")(number)
    model = keras.Model(number, keras.layers.Dense(2)(keras.layers.BatchNormalization()(hidden)))
    path = tmp_path_factory.mktemp("keras3") / "saved"
    model.export(str(path), verbose=False)
    del tf
    return path


@pytest.fixture(scope="session")
def graph_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TF1 model: reference and resource variables, a partitioned one, tables from a file, a sparse input."""
    tf1 = pytest.importorskip("tensorflow").compat.v1
    folder = tmp_path_factory.mktemp("tf1")
    (folder / "words.txt").write_bytes(b"cat\t3\ndog\t5\n")
    with tf1.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf1.float32, [None, 4], name="x")
        sparse = tf1.sparse_placeholder(tf1.string, [None, 10], name="sparse")
        old = tf1.get_variable("old", initializer=np.ones([4, 2], np.float32), use_resource=False)
        frozen = tf1.get_variable("frozen", initializer=np.float32([3, 4]), trainable=False, use_resource=True)
        parts = tf1.get_variable("parts", [7, 2], partitioner=tf1.fixed_size_partitioner(3), use_resource=True)
        table = tf1.lookup.StaticHashTable(
            tf1.lookup.TextFileInitializer(str(folder / "words.txt"), tf1.string, 0, tf1.int64, 1, delimiter="\t"), -1
        )
        found = table.lookup(sparse.values)
        y = tf1.matmul(x, old) + frozen + tf1.reduce_sum(tf1.convert_to_tensor(parts), 0, name="y")
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        builder = tf1.saved_model.Builder(str(folder / "saved"))
        info = tf1.saved_model.build_tensor_info
        signature = tf1.saved_model.build_signature_def(
            {"x": info(x), "s": info(sparse)}, {"y": info(y), "found": info(found)}, "tensorflow/serving/predict"
        )
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            main_op=tf1.tables_initializer(),
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
            saver=tf1.train.Saver(sharded=True),
        )
        builder.add_meta_graph(["train"], {"serving_default": signature})
        builder.save()
    return folder / "saved"


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a SavedModel to where a test may damage it."""

    def copy_tree(path: Path) -> Path:
        return Path(shutil.copytree(path, tmp_path / "saved"))

    return copy_tree


def mutate(path: Path, change: Callable[[Any], None]) -> None:
    """Applies `change` to the first meta graph of a SavedModel."""
    file = path / "saved_model.pb"
    message = protos.parse("SavedModel", file.read_bytes(), str(file))
    change(message.meta_graphs[0])
    file.write_bytes(message.SerializeToString())
