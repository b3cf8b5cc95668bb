"""Inferred domains of traced graphs, and TensorFlow's acceptance of inputs generated from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from porting.flat_graph.flatten import flatten
from porting.samples import samples
from porting.samples.domains import infer
from porting.saved_model import read
from tests.witness import saved_model_of, tf

TABLE = np.arange(40, dtype=np.float32).reshape(10, 4)


@dataclass
class Traced:
    """A traced function with its flat graph and what is made for it."""

    concrete: Any
    graph: Any
    model: Any

    def of(self, name: str, column: int = 0) -> Any:
        found = infer(self.graph, self.model)
        return found.of[int(found.ids[name].reshape(-1)[column])]

    def drawn(self, name: str, kind: str = "domain", column: int | None = None) -> set[Any]:
        found = [sample.inputs[name] for sample in self.made() if sample.kind == kind]
        return {
            item for array in found for item in (array if column is None else array[:, column]).reshape(-1).tolist()
        }

    def made(self) -> list[samples.Sample]:
        return samples.batches(self.graph, self.model)

    def answers(self, sample: samples.Sample) -> bool:
        try:
            self.concrete(**{name: tf.constant(value) for name, value in sample.inputs.items()})
        except tf.errors.OpError:
            return False
        return True


def traced(function: Callable[..., Any], **specs: Any) -> Traced:
    given = {name: tf.TensorSpec(spec[0], spec[1], name) for name, spec in specs.items()}
    concrete = tf.function(function).get_concrete_function(**given)
    model = saved_model_of(concrete, list(specs))
    return Traced(concrete, flatten(model.graph("traced"), model.functions), model)


FLOAT, INT, TEXT = ([None], "float32"), ([None], "int32"), ([None], "string")
IDS = {
    "float ids": (lambda x: tf.gather(TABLE, tf.cast(x, tf.int32)), FLOAT, (0, 9)),
    "one column": (lambda x: tf.gather(TABLE, tf.squeeze(tf.cast(x, tf.int64), 1)), ([None, 1], "float32"), (0, 9)),
    "ids from 1": (lambda x: tf.gather(TABLE, x - 1), INT, (1, 10)),
    "shifted, then clipped": (lambda x: tf.gather(TABLE, tf.clip_by_value(x + 2, 0, 9)), INT, (-2, 7)),
    "scaled": (lambda x: tf.gather(TABLE, tf.cast(x * 9.0, tf.int32)), FLOAT, (0, 1)),
    "negative ids wrap": (lambda x: tf.gather(TABLE, tf.where(x < 0, x + 10, x)), INT, (0, 9)),
    "one-hot": (lambda x: tf.one_hot(x, 6), INT, (0, 5)),
    "bincount": (lambda x: tf.math.bincount(x, minlength=6, maxlength=6, axis=-1), ([None, 3], "int32"), (0, 5)),
    "in two steps of reshaping": (lambda x: tf.gather(TABLE, tf.reshape(tf.transpose(x), [-1])), ([None, 3], "int32"), (0, 9)),
    "in a branch": (
        lambda x: tf.cond(tf.size(x) > 1, lambda: tf.gather(TABLE, x), lambda: tf.gather(TABLE, x) * 2), INT, (0, 9)),
    "row by row": (lambda x: tf.map_fn(lambda i: tf.gather(TABLE, i), x, fn_output_signature=tf.float32), INT, (0, 9)),
    "as text": (lambda x: tf.gather(TABLE, tf.strings.to_number(x, tf.int32)), TEXT, (0, 9)),
}  # fmt: skip


@pytest.mark.parametrize("name", IDS)
def test_ids_stay_in_the_table_they_index_and_reach_its_ends(name: str) -> None:
    function, spec, (low, high) = IDS[name]
    tower = traced(function, x=spec)
    found = {float(value) for value in tower.drawn("x")}
    assert min(found) == low
    assert max(found) <= high
    assert max(found) > high - 1
    assert all(tower.answers(sample) for sample in tower.made() if sample.kind == "domain")


def test_ids_of_a_variable(tmp_path: Any) -> None:
    """As Keras 3 writes an embedding: negative ids wrap by the variable's own shape."""
    module = tf.Module()
    module.table = tf.Variable(TABLE)

    def embed(x: Any) -> dict[str, Any]:
        rows = tf.shape(module.table)[0]
        return {"y": tf.gather(module.table, tf.where(x < 0, x + rows, x))}

    module.serve = tf.function(embed, input_signature=[tf.TensorSpec([None], tf.int32, "x")])
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    model = read(tmp_path)
    graph = flatten(model.graph("serving_default"), model.functions)
    found = [s.inputs["x"] for s in samples.batches(graph, model) if s.kind == "domain"]
    assert {i for ids in found for i in ids.tolist()} == set(range(10))


def test_ids_just_outside_are_tried_alone_where_tensorflow_refuses() -> None:
    tower = traced(lambda x, y: tf.gather(TABLE, x) + tf.gather(TABLE, tf.cast(y, tf.int32)), x=INT, y=FLOAT)
    refused = [sample.inputs for sample in tower.made() if not tower.answers(sample)]
    assert {-1, 10} <= {row["x"].item() for row in refused}
    assert {-1.0, 10.0} <= {row["y"].item() for row in refused}
    assert all(len(row["x"]) == 1 for row in refused)


def test_columns_of_one_input_have_domains_of_their_own() -> None:
    def tower(x: Any) -> Any:
        user, item, age = tf.split(x, [1, 1, 2], 1)
        parts = [tf.gather(TABLE, tf.cast(user[:, 0], tf.int32)), tf.gather(TABLE[:4], tf.cast(item[:, 0], tf.int32))]
        return tf.concat([*parts, (age - [30.0, 500.0]) / [10.0, 50.0]], 1)

    found = traced(tower, x=([None, 4], "float32"))
    assert {int(value) for value in found.drawn("x", column=0)} == set(range(10))
    assert {int(value) for value in found.drawn("x", column=1)} == set(range(4))
    assert 20 <= min(found.drawn("x", column=2)) < max(found.drawn("x", column=2)) <= 40
    assert 450 <= min(found.drawn("x", column=3)) < max(found.drawn("x", column=3)) <= 550


def test_inputs_that_are_packed_first() -> None:
    found = traced(lambda x, y: tf.gather(TABLE, tf.stack([x, y + 1], 1)), x=INT, y=INT)
    assert (min(found.drawn("x")), max(found.drawn("x"))) == (0, 9)
    assert (min(found.drawn("y")), max(found.drawn("y"))) == (-1, 8)


def attention(ids: Any, mask: Any, kinds: Any) -> Any:
    """As BERT and ALBERT: 0 in the mask takes a position out."""
    x = tf.gather(TABLE, ids) + tf.gather(TABLE[:2], kinds)
    bias = (1.0 - tf.cast(mask, tf.float32)[:, None, :]) * -10000.0
    return tf.nn.softmax(tf.matmul(x, x, transpose_b=True) + bias) @ x


def test_a_mask_is_0_or_1() -> None:
    sequence = ([None, None], "int32")
    found = traced(attention, ids=sequence, mask=sequence, kinds=sequence)
    assert found.drawn("mask") == {0, 1}
    assert found.drawn("kinds") == {0, 1}
    assert found.drawn("ids") <= set(range(10))
    assert all(found.answers(sample) for sample in found.made() if sample.kind == "domain")


KERNEL = np.ones([3, 3, 3, 2], np.float32)
PIXELS = {
    "0 to 255, to 0..1": (lambda x: x / 255.0, 0, 255),
    "0 to 255, to -1..1": (lambda x: x / 127.5 - 1.0, 0, 255),
    "multiplied and added, as Rescaling does": (lambda x: x * (1 / 127.5) + (-1.0), 0, 255),
    "means taken off": (lambda x: x - [103.939, 116.779, 123.68], 0, 248),
    "0 to 1": (lambda x: x, 0, 1),
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_have_the_values_that_are_rescaled(name: str) -> None:
    rescale, low, high = PIXELS[name]
    found = traced(lambda x: tf.nn.conv2d(rescale(x), KERNEL, 1, "SAME"), x=([None, 8, 8, 3], "float32")).drawn("x")
    assert low <= min(found) < low + high / 10
    assert high * 0.8 < max(found) <= high


def test_buckets_and_their_neighbours() -> None:
    found = traced(lambda x: tf.raw_ops.Bucketize(input=tf.cast(x, tf.float32) / 10.0, boundaries=[1.0, 6.5]), x=FLOAT)
    assert -5 <= min(found.drawn("x")) < 10
    assert 65 < max(found.drawn("x")) < 90
    edges = found.drawn("x", "edge")
    beside = {float(np.nextafter(np.float32(65), np.float32(way))) for way in (0, 100)}
    assert {10.0, 65.0, *beside} <= edges


@pytest.mark.parametrize(
    ("function", "example"),
    [
        (lambda x: tf.strings.to_number(tf.strings.substr(x, 0, 4), tf.int32), b"2021-03-14 15:09:26"),
        (lambda x: tf.strings.to_number(tf.strings.split(x, "-").to_tensor(), tf.int32), b"2021-03-14"),
        (lambda x: tf.strings.to_number(tf.strings.split(x, ",").to_tensor(), tf.float32), None),
        (lambda x: tf.strings.to_number(x), None),
        (lambda x: tf.strings.to_number(tf.strings.regex_replace(x, r"^[A-Z]{2}-(\d+)$", r"\1")), None),
    ],
    ids=["substr", "split date", "split numbers", "number", "regular expression"],
)
def test_texts_have_the_format_that_is_read(function: Any, example: bytes | None) -> None:
    found = traced(function, x=TEXT)
    assert example is None or example in found.drawn("x")
    assert all(found.answers(sample) for sample in found.made() if sample.kind == "domain")


def test_a_pattern_gives_texts_that_match_it() -> None:
    found = traced(lambda x: tf.strings.regex_full_match(x, r"(tt|nm)\d{7}"), x=TEXT)
    matching = [text for text in found.drawn("x") if text[:2] in (b"tt", b"nm") and len(text) == 9]
    assert len(matching) >= 3


def test_empty_texts_and_unknown_words_are_edges() -> None:
    found = traced(lambda x, y: tf.strings.lower(x) + y, x=TEXT, y=TEXT)
    for name in ("x", "y"):
        assert b"" not in found.drawn(name)
        assert b"" in found.drawn(name, "edge")
    rows = [row for s in found.made() for row in zip(s.inputs["x"].tolist(), s.inputs["y"].tolist(), strict=True)]
    assert (b"", b"") in rows


def test_features_of_records_have_domains_too() -> None:
    features = {"id": tf.io.FixedLenFeature([2], tf.int64), "tags": tf.io.VarLenFeature(tf.int64)}

    def tower(x: Any) -> Any:
        parsed = tf.io.parse_example(x, features)
        return tf.gather(TABLE, parsed["id"]), tf.gather(TABLE[:3], parsed["tags"].values)

    found = traced(tower, x=TEXT)
    examples = [tf.train.Example.FromString(item).features.feature for item in found.drawn("x")]
    ids = {value for example in examples for value in example["id"].int64_list.value}
    tags = {value for example in examples for value in example["tags"].int64_list.value}
    assert len(ids) > 5 and ids <= set(range(10))
    assert tags == {0, 1, 2}
    assert all(found.answers(sample) for sample in found.made() if sample.kind == "domain")


def turns(x: Any, steps: Any) -> Any:
    return tf.while_loop(lambda i, y: i < steps, lambda i, y: (i + 1, y * 2.0), [0, x])[1]


@pytest.mark.parametrize(
    "function",
    [
        turns,
        lambda x, steps: tf.range(steps),
        lambda x, steps: tf.tile(x, [steps]),
        lambda x, steps: tf.fill([steps], 1.0),
    ],
    ids=["loop", "range", "tile", "fill"],
)
def test_sizes_and_numbers_of_turns_are_small(function: Any) -> None:
    """1e9 iterations never finish, and 1e9 elements exhaust memory."""
    found = traced(function, x=FLOAT, steps=([], "int32"))
    assert found.drawn("steps") <= {1, 2, 3, 5}
    assert found.drawn("steps", "edge") <= {0, 1, 2, 3, 5}


def test_masks_that_are_multiplied() -> None:
    found = traced(lambda x, m: tf.gather(TABLE, x) * tf.cast(m, tf.float32)[:, None], x=INT, m=INT)
    assert found.drawn("m") == {0, 1}


def test_a_known_key_is_tried_as_it_is_and_spelled_otherwise() -> None:
    found = traced(lambda x: tf.strings.lower(x) + tf.where(tf.equal(x, "42"), "y", "n"), x=TEXT)
    assert b"42" in found.drawn("x")
    assert {b"42.0", b" 42"} <= found.drawn("x", "edge")


def test_what_was_computed_of_several_elements_is_nobodys() -> None:
    found = traced(lambda x: tf.gather(TABLE, tf.reduce_sum(x, 1) // 1000), x=([None, 2], "int32"))
    assert found.of("x").ranges == []
