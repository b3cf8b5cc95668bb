"""TensorFlow 1: graphs with reference variables, control flow in both forms, tables from files, several meta graphs, Hub modules;
and feature columns behind serialized examples, as Estimators export them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from tests.witness import tf

tf1 = tf.compat.v1
RNG = np.random.default_rng(11)


def _draw(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


@contextmanager
def _session(*, v2_control_flow: bool = False) -> Iterator[Any]:
    """A new graph and a session."""
    before = tf1.control_flow_v2_enabled()
    (tf1.enable_control_flow_v2 if v2_control_flow else tf1.disable_control_flow_v2)()
    try:
        with tf1.Graph().as_default(), tf1.Session() as session:
            yield session
    finally:
        (tf1.enable_control_flow_v2 if before else tf1.disable_control_flow_v2)()


def _save(session: Any, path: Path, inputs: Any, outputs: Any, **options: Any) -> None:
    session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
    tf1.saved_model.simple_save(session, str(path), inputs, outputs, legacy_init_op=tf1.tables_initializer(), **options)


def _words(path: Path) -> str:
    file = path.parent / "words.txt"
    file.write_bytes("cat\ndog\nnaïve\n\tfish \nbig bird\n".encode())
    return str(file)


def variables(path: Path) -> None:
    """Reference and resource variables, one in parts ("mod" and "div"), a table from a file with hash buckets for OOV."""
    with _session() as session:
        words = tf1.placeholder(tf1.string, [None], "words")
        ids = tf1.placeholder(tf1.int64, [None, 3], "ids")
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(_words(path), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
                                          tf.lookup.TextFileIndex.LINE_NUMBER), 2)  # fmt: skip
        old = tf1.get_variable("old", initializer=_draw(7, 4), use_resource=False)
        parts = tf1.get_variable("parts", [11, 4], partitioner=tf1.fixed_size_partitioner(3), use_resource=True,
                                 initializer=tf1.random_normal_initializer(seed=1))  # fmt: skip
        old_parts = tf1.get_variable("old_parts", [11, 4], partitioner=tf1.fixed_size_partitioner(2), use_resource=False,
                                     initializer=tf1.random_normal_initializer(seed=2))  # fmt: skip
        found = tf1.nn.embedding_lookup(old, table.lookup(words))
        div = tf1.nn.embedding_lookup(parts, ids, partition_strategy="div")
        mod = tf1.nn.embedding_lookup(list(parts), ids, partition_strategy="mod")
        old_div = tf1.nn.embedding_lookup(old_parts, ids, partition_strategy="div")
        kernel = tf1.get_variable("kernel", initializer=_draw(16, 5), use_resource=False)
        pooled = [tf1.reduce_mean(value, 1) for value in (div, mod, old_div)]
        embedding = tf1.nn.l2_normalize(tf1.matmul(tf1.concat([found, *pooled], 1), kernel), 1)
        _save(session, path, {"words": words, "ids": ids}, {"embedding": embedding, "found": found})


def _control(path: Path, v2: bool) -> None:
    with _session(v2_control_flow=v2) as session:
        x = tf1.placeholder(tf1.float32, [None, 4], "x")
        steps = tf1.placeholder(tf1.int32, [], "steps")
        kernel = tf1.get_variable("kernel", initializer=_draw(4, 4))
        training = tf1.placeholder_with_default(False, [], "training")
        dropped = tf1.cond(training, lambda: tf1.nn.dropout(x, rate=0.5), lambda: tf1.identity(x))
        positive = tf1.cond(tf1.reduce_sum(x) > 0, lambda: tf1.matmul(x, kernel), lambda: x - 1.0)

        def body(i: Any, value: Any) -> Any:
            return i + 1, tf1.cond(
                tf1.equal(i % 2, 0), lambda: tf1.tanh(tf1.matmul(value, kernel)), lambda: value * 0.5
            )

        _, looped = tf1.while_loop(lambda i, _: i < steps, body, [0, dropped])
        scanned = tf1.scan(lambda total, row: total * 0.5 + row, x)
        mapped = tf1.map_fn(lambda row: tf1.reduce_max(row) * kernel[0], x)
        _save(
            session,
            path,
            {"x": x, "steps": steps},
            {"positive": positive, "looped": looped, "scanned": scanned, "mapped": mapped},
        )


def control_flow_1(path: Path) -> None:
    """Switch, Merge, Enter, Exit, NextIteration."""
    _control(path, False)


def control_flow_2(path: Path) -> None:
    """If and While in a TF1 graph."""
    _control(path, True)


def several_graphs(path: Path) -> None:
    """Two meta graphs over the same variables: one for training with dropout, one for serving."""
    builder = tf1.saved_model.Builder(str(path))
    for tags in (["train"], ["serve"], ["serve", "half"]):
        with _session() as session:
            x = tf1.placeholder(tf1.float32, [None, 4], "x")
            kernel = tf1.get_variable("kernel", initializer=np.arange(8, dtype=np.float32).reshape(4, 2) / 7)
            y = tf1.matmul(x, kernel) * (0.5 if "half" in tags else 1.0)
            signature = tf1.saved_model.predict_signature_def({"x": x}, {"y": y})
            session.run(tf1.global_variables_initializer())
            if tags == ["train"]:
                builder.add_meta_graph_and_variables(session, tags, {"serving_default": signature})
            else:
                builder.add_meta_graph(tags, {"serving_default": signature})
    builder.save()


def hub_1(path: Path) -> None:
    """A TensorFlow Hub module of the first kind: no init op, tables in their collection, a signature called "default"."""
    with _session() as session:
        text = tf1.placeholder(tf1.string, [None], "text")
        table = tf1.lookup.StaticHashTable(
            tf1.lookup.TextFileInitializer(_words(path), tf1.string, tf1.lookup.TextFileIndex.WHOLE_LINE, tf1.int64,
                                           tf1.lookup.TextFileIndex.LINE_NUMBER), 5)  # fmt: skip
        words = tf1.string_split(tf1.regex_replace(text, "[^a-z ]", ""), " ")
        ids = tf1.SparseTensor(words.indices, table.lookup(words.values), words.dense_shape)
        tables = tf1.get_variable("embeddings", initializer=_draw(6, 4))
        embedding = tf1.nn.safe_embedding_lookup_sparse([tables], ids, combiner="sqrtn")
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        builder = tf1.saved_model.Builder(str(path))
        signature = tf1.saved_model.predict_signature_def({"default": text}, {"default": embedding})
        files = tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS)
        builder.add_meta_graph_and_variables(session, [], {"default": signature}, assets_collection=files)
        builder.save()


def feature_columns(path: Path) -> None:
    """A tower of feature columns behind serialized tf.Examples, in a TF1 graph: what an Estimator exports."""
    fc = tf1.feature_column
    with _session() as session:
        age = fc.numeric_column("age")
        buckets = fc.bucketized_column(age, [18.0, 25.5, 40.0, 65.0])
        city = fc.categorical_column_with_vocabulary_list("city", ["paris", "rome", "zürich"], num_oov_buckets=2)
        country = fc.categorical_column_with_vocabulary_list("country", ["fr", "it"], default_value=-1)
        animal = fc.categorical_column_with_vocabulary_file("animal", _words(path), num_oov_buckets=1)
        user = fc.categorical_column_with_hash_bucket("user", 20)
        item = fc.categorical_column_with_identity("item", 9, default_value=0)
        crossed = fc.crossed_column([buckets, "city"], 15)
        columns = [
            age, fc.numeric_column("price", shape=[2], default_value=1.5), buckets, fc.indicator_column(city),
            fc.indicator_column(country), fc.embedding_column(animal, 3), fc.embedding_column(user, 4, combiner="sqrtn"),
            fc.embedding_column(item, 4, combiner="sum"), fc.indicator_column(crossed), fc.embedding_column(crossed, 3),
            *fc.shared_embedding_columns([fc.categorical_column_with_hash_bucket(name, 20) for name in ("seen", "bought")], 3),
        ]  # fmt: skip
        examples = tf1.placeholder(tf1.string, [None], "examples")
        features = tf1.parse_example(examples, fc.make_parse_example_spec(columns))
        joined = fc.input_layer(features, columns)
        linear = fc.linear_model(features, [user, city, buckets])
        kernel = tf1.get_variable("kernel", initializer=_draw(int(joined.shape[1]), 6))
        hidden = tf1.layers.dense(tf1.nn.relu(tf1.matmul(joined, kernel)), 4)
        _save(session, path, {"examples": examples}, {"embedding": hidden, "features": joined, "linear": linear})


def dense_features(path: Path) -> None:
    """The same idea in tf_keras: DenseFeatures over named inputs."""
    fc = tf.feature_column
    age = fc.numeric_column("age")
    buckets = fc.bucketized_column(age, [18.0, 40.0])
    city = fc.categorical_column_with_vocabulary_list("city", ["paris", "rome"])
    user = fc.categorical_column_with_hash_bucket("user", 20)
    crossed = fc.crossed_column(["city", "user"], 15)
    columns = [age, buckets, fc.indicator_column(city), fc.embedding_column(user, 4), fc.indicator_column(crossed)]
    inputs = {
        "age": tf_keras.Input((1,), name="age"),
        "city": tf_keras.Input((1,), name="city", dtype="string"),
        "user": tf_keras.Input((1,), name="user", dtype="string"),
    }
    x = tf_keras.layers.DenseFeatures(columns)(inputs)
    tf_keras.Model(inputs, tf_keras.layers.Dense(4)(x)).save(str(path))
