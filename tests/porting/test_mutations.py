"""Mutations: small mistakes that a port could make, each written as a TensorFlow function next to the right one.

The port of the wrong function, computed as written, replaces the right port: the comparison must fail on inputs that it generates itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import SavedModel, read
from porting.served import Served
from porting.tower import port_tower
from tests.witness import tf

Function = Callable[[Any], Any]
SIZE = 8
RNG = np.random.default_rng(0)


def weights(*shape: int) -> Any:
    return tf.constant((RNG.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))


SQUARE, FIRST, SECOND, KERNEL = (weights(SIZE, SIZE) for _ in range(4))
BIAS, SCALE, MEAN = weights(SIZE), weights(SIZE) + 1.0, weights(SIZE)
VARIANCE = tf.constant(RNG.uniform(0.5, 1.5, SIZE).astype(np.float32))
TABLE = weights(32, SIZE)
FILTER = weights(3, SIZE, SIZE)
AS_WRITTEN = Served(optimizer=False)  # the wrong ones: TensorFlow's optimizer would mend some, log(x + 1) for one
TABLES: list[Any] = []  # a SavedModel must know them
WORDS = tf.constant(["red", "green", "blue", "größe"])


@dataclass(frozen=True)
class Mutation:
    """What is right, what is wrong, and the type of the one input: rows of `SIZE` numbers, of ids below 32, or a word."""

    right: Function
    wrong: Function
    dtype: Any = tf.float32


def batch_norm(epsilon: float) -> Function:
    return lambda x: (x - MEAN) * tf.math.rsqrt(VARIANCE + epsilon) * SCALE + BIAS


def layer_norm(epsilon: float) -> Function:
    def run(x: Any) -> Any:
        mean, variance = tf.nn.moments(x, [1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, BIAS, SCALE, epsilon)

    return run


def same(x: Any) -> Any:
    """Values between -1 and 1, so that no activation is saturated."""
    return tf.tanh(x @ SQUARE)


def conv(padding: list[int]) -> Function:
    return lambda x: tf.nn.conv1d(tf.pad(same(x)[:, :, None] * BIAS, [[0, 0], padding, [0, 0]]), FILTER, 1, "VALID")


def pooled(reduce: Callable[..., Any]) -> Function:
    return lambda ids: reduce(tf.gather(TABLE, tf.clip_by_value(ids, 0, 31)), axis=1)


def masked(mask: bool) -> Function:
    def run(ids: Any) -> Any:
        ids = tf.clip_by_value(ids, 0, 31)
        kept = tf.cast(ids > 0, tf.float32)[:, :, None] if mask else 1.0
        return tf.reduce_sum(tf.gather(TABLE, ids) * kept, 1)

    return run


def lookup(oov: int, default: int = 0) -> Function:
    keys = tf.lookup.KeyValueTensorInitializer(WORDS, tf.range(4, dtype=tf.int64))
    table = tf.lookup.StaticVocabularyTable(keys, oov) if oov else tf.lookup.StaticHashTable(keys, default)
    TABLES.append(table)
    return table.lookup


def shouted(look: Function) -> Function:
    return lambda words: look(tf.strings.upper(words))


def hashed(buckets: int) -> Function:
    return lambda words: tf.strings.to_hash_bucket_fast(words, buckets)


def wide(constant: float) -> Function:
    return lambda x: x * tf.constant(constant, tf.float64)


def cast_wide(constant: float) -> Function:
    return lambda x: wide(constant)(tf.cast(x, tf.float64))


def shares(x: Any) -> Any:
    """TensorFlow's optimizer makes these products: 41 * (1 / 41) is below 1."""
    return tf.cast(x / tf.constant([41.0, 47, 55, 61, 82, 83, 94, 97], tf.float32), tf.int32)


def attention(scale: float, axis: int = -1) -> Function:
    def run(x: Any) -> Any:
        q, k = same(x)[:, :, None] * BIAS, same(x)[:, :, None] * SCALE
        return tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * scale, axis)

    return run


MUTATIONS: dict[str, Mutation] = {
    "batch norm's epsilon": Mutation(batch_norm(1e-3), batch_norm(1e-5)),
    "layer norm's epsilon": Mutation(layer_norm(1e-3), layer_norm(1e-6)),
    "l2's epsilon": Mutation(
        lambda x: tf.math.l2_normalize(same(x) * 1e-2, 1), lambda x: tf.math.l2_normalize(same(x) * 1e-2, 1, 1e-3)
    ),
    "axes of equal sizes": Mutation(
        lambda x: tf.reshape(same(x)[:, :, None] * SQUARE, [-1, SIZE * SIZE]),
        lambda x: tf.reshape(tf.transpose(same(x)[:, :, None] * SQUARE, [0, 2, 1]), [-1, SIZE * SIZE]),
    ),
    "a transposed kernel": Mutation(lambda x: x @ KERNEL, lambda x: x @ tf.transpose(KERNEL)),
    "a leaky relu's slope": Mutation(lambda x: tf.nn.leaky_relu(same(x), 0.2), lambda x: tf.nn.leaky_relu(same(x), 0.3)),
    "relu for leaky relu": Mutation(lambda x: tf.nn.leaky_relu(same(x), 0.01), lambda x: tf.nn.relu(same(x))),
    "relu for relu6": Mutation(lambda x: tf.nn.relu6(10 * same(x)), lambda x: tf.nn.relu(10 * same(x))),
    "elu for selu": Mutation(lambda x: tf.nn.selu(same(x)), lambda x: tf.nn.elu(same(x))),
    "hard sigmoid's slope": Mutation(
        lambda x: tf.clip_by_value(same(x) * 0.2 + 0.5, 0.0, 1.0), lambda x: tf.nn.relu6(same(x) + 3.0) / 6.0
    ),
    "tanh for erf in gelu": Mutation(lambda x: tf.nn.gelu(same(x), False), lambda x: tf.nn.gelu(same(x), True)),
    "swish for gelu": Mutation(lambda x: tf.nn.gelu(same(x), True), lambda x: tf.nn.silu(1.702 * same(x)) / 1.702),
    "a bias of 1e-3": Mutation(lambda x: same(x) @ KERNEL + 1e-3, lambda x: same(x) @ KERNEL),
    "a constant of float32 in float64": Mutation(wide(0.1), wide(float(np.float32(0.1))), tf.float64),
    "a constant of float32 in float64, behind a cast": Mutation(cast_wide(0.1), cast_wide(float(np.float32(0.1)))),
    "a product in float32 for float64": Mutation(cast_wide(0.1), lambda x: tf.cast(x * np.float32(0.1), tf.float64)),
    "a bias of 1e-5": Mutation(lambda x: same(x) @ KERNEL + 1e-5, lambda x: same(x) @ KERNEL),
    "an epsilon of 1e-5 for 1e-4": Mutation(layer_norm(1e-4), layer_norm(1e-5)),
    "a tie to the other side": Mutation(
        lambda ids: SIZE - 1 - tf.argmax(tf.reverse(ids * 0, [1]), 1), lambda ids: tf.argmax(ids * 0, 1), tf.int32
    ),
    "round half up": Mutation(
        lambda ids: tf.round(tf.cast(ids, tf.float32) / 2.0), lambda ids: tf.floor(tf.cast(ids, tf.float32) / 2.0 + 0.5),
        tf.int32,
    ),
    "padding on the other side": Mutation(conv([0, 2]), conv([2, 0])),
    "same padding for causal": Mutation(conv([2, 0]), conv([1, 1])),
    "softmax over the other axis": Mutation(attention(0.35), attention(0.35, axis=1)),
    "attention without its scale": Mutation(attention(SIZE**-0.5), attention(1.0)),
    "swapped weights": Mutation(
        lambda x: tf.tanh(same(x) @ FIRST) @ SECOND, lambda x: tf.tanh(same(x) @ SECOND) @ FIRST
    ),
    "a sign": Mutation(lambda x: same(x) * BIAS - MEAN, lambda x: same(x) * BIAS + MEAN),
    "the order of a concatenation": Mutation(
        lambda x: tf.concat([same(x), x], 1), lambda x: tf.concat([x, same(x)], 1)
    ),
    "an id that is off by one": Mutation(
        lambda ids: tf.gather(TABLE, tf.clip_by_value(ids, 0, 31)),
        lambda ids: tf.gather(TABLE, tf.clip_by_value(ids + 1, 0, 31)), tf.int32,
    ),
    "a default of a table": Mutation(lookup(0, 0), lookup(0, -1), tf.string),
    "how many unknown words": Mutation(lookup(3), lookup(2), tf.string),
    "buckets of a hash": Mutation(hashed(1000), hashed(1001), tf.string),
    "case of a text": Mutation(lookup(1), shouted(lookup(1)), tf.string),
    "mean for sum": Mutation(pooled(tf.reduce_sum), pooled(tf.reduce_mean), tf.int32),
    "max for mean": Mutation(pooled(tf.reduce_mean), pooled(tf.reduce_max), tf.int32),
    "sqrt(n) for n": Mutation(
        pooled(tf.reduce_mean), lambda ids: pooled(tf.reduce_sum)(ids) / np.float32(np.sqrt(SIZE)), tf.int32
    ),
    "a mask that is ignored": Mutation(masked(True), masked(False), tf.int32),
    "a bound that belongs to the other bucket": Mutation(
        lambda x: tf.searchsorted(tf.constant([0.0, 1.0, 2.0]), tf.reshape(x, [-1]), "right"),
        lambda x: tf.searchsorted(tf.constant([0.0, 1.0, 2.0]), tf.reshape(x, [-1]), "left"),
    ),
    "truncated for floored division": Mutation(
        lambda ids: tf.math.floordiv(ids - 16, 3), lambda ids: tf.truncatediv(ids - 16, 3), tf.int32
    ),
    "variance of a sample": Mutation(
        lambda x: tf.math.reduce_variance(same(x), 1), lambda x: tf.math.reduce_variance(same(x), 1) * (SIZE / (SIZE - 1))
    ),
    "log(x + 1) for log1p": Mutation(
        lambda x: tf.math.log1p(tf.abs(same(x)) * 1e-5), lambda x: tf.math.log(tf.abs(same(x)) * 1e-5 + 1.0)
    ),
    "a quotient for the served product in ids": Mutation(shares, shares),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    """A SavedModel with two signatures for each mutation: `right<i>` and `wrong<i>`."""
    holder = tf.Module()
    signatures: dict[str, Any] = {}
    for i, mutation in enumerate(MUTATIONS.values()):
        shape = [None] if mutation.dtype == tf.string else [None, SIZE]
        for kind in ("right", "wrong"):
            function = getattr(mutation, kind)
            spec = tf.TensorSpec(shape, mutation.dtype, "x")
            named = tf.function(lambda x, function=function: {"y": function(x)}, input_signature=[spec])
            signatures[f"{kind}{i}"] = named
    holder.tables = TABLES
    path = tmp_path_factory.mktemp("mutations") / "model"
    tf.saved_model.save(holder, str(path), signatures=signatures)
    return read(path)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_right_port_passes_and_the_mutated_one_does_not(model: SavedModel, oracle: Oracle, name: str) -> None:
    i = list(MUTATIONS).index(name)
    right, wrong = port_tower(model, f"right{i}"), port_tower(model, f"wrong{i}", served=AS_WRITTEN)
    assert verify_with_tensorflow(right, oracle).verdict == "equal"
    mutated = replace(right, spec=wrong.spec, store=wrong.store, frozen=wrong.frozen, ids={}, without_lifts=None)
    assert verify_with_tensorflow(mutated, oracle).verdict == "unequal"
