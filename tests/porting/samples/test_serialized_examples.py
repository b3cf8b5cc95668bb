"""Records for a graph's parser: TensorFlow parses every one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from porting.flat_graph.flatten import flatten
from porting.samples.samples import RECORDS, batches
from tests.witness import saved_model_of, tf, to_numpy, trace

FEATURES: dict[str, Any] = {
    "word": tf.io.FixedLenFeature([], tf.string),
    "ids": tf.io.FixedLenFeature([2, 3], tf.int64),
    "age": tf.io.FixedLenFeature([1], tf.float32, default_value=[7.5]),
    "tags": tf.io.VarLenFeature(tf.string),
    "scores": tf.io.VarLenFeature(tf.float32),
    "rows": tf.io.RaggedFeature(tf.int64),
}
SOME = {name: FEATURES[name] for name in ("word", "age", "tags")}


def parse(x: Any) -> Any:
    return [part for value in tf.io.parse_example(x, FEATURES).values() for part in parts(value)]


def parts(value: Any) -> list[Any]:
    return tf.nest.flatten(value, expand_composites=True)


def parse_version_1(x: Any) -> Any:
    found = tf.raw_ops.ParseExample(
        serialized=x, names=[], sparse_keys=["tags"], dense_keys=["word", "age"],
        dense_defaults=[tf.constant([], tf.string), tf.constant([7.5])], sparse_types=[tf.string],
        dense_shapes=[[], [1]],
    )  # fmt: skip
    return [*found.sparse_values, *found.dense_values]


def parse_one_by_one(x: Any) -> Any:
    found = tf.io.parse_single_example(tf.reshape(x, []), SOME)
    return [found["word"], found["age"], found["tags"].values]


def traced(function: Any) -> tuple[Any, Any]:
    concrete = trace(function, {"x": np.array([b""], object)}, free=function is not parse_one_by_one)
    model = saved_model_of(concrete, ["x"])
    return concrete, flatten(model.graph("traced"), model.functions)


def records(function: Any, kind: str) -> tuple[Any, list[bytes]]:
    concrete, graph = traced(function)
    made = batches(graph, saved_model_of(concrete, ["x"]))
    return concrete, sorted(
        {record for sample in made if sample.kind == kind for record in sample.inputs["x"].tolist()} - {b""}
    )


@pytest.mark.parametrize("function", [parse, parse_version_1, parse_one_by_one])
@pytest.mark.parametrize("kind", ["domain", "edge"])
def test_tensorflow_parses_every_record(function: Any, kind: str) -> None:
    concrete, found = records(function, kind)
    results = [concrete(tf.constant([record])) for record in found]
    assert len({str([to_numpy(item).tolist() for item in result]) for result in results}) > RECORDS // 2


@pytest.mark.parametrize(("kind", "values"), [("domain", {1}), ("edge", {1, 2})])
def test_optional_features_are_there_and_missing(kind: str, values: set[int]) -> None:
    """And those of any length have one value in the domain, one or two at its edges."""
    examples = [tf.train.Example.FromString(record) for record in records(parse, kind)[1]]
    for name, optional in (("word", False), ("ids", False), ("age", True), ("tags", True), ("rows", True)):
        there = [name in example.features.feature for example in examples]
        assert all(there) != optional
        assert any(there)
    lengths = {len(e.features.feature["tags"].bytes_list.value) for e in examples if "tags" in e.features.feature}
    assert lengths == values


def test_other_strings_are_no_records() -> None:
    assert b"hello world" in records(lambda x: tf.strings.length(x), "domain")[1]
