"""Shape arithmetic folds at port time if ranks are known, and otherwise runs like TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.witness import check_function, tf
from torch_towers.program.program import Program

A = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
B = np.arange(60, dtype=np.float32).reshape(5, 3, 4)


def ops(program: Program) -> list[str]:
    return [node.op for node in program.graph.nodes]


def ported(function: Callable[..., Any], *batches: np.ndarray) -> list[str]:
    """The ops of the port, which is equal to TensorFlow on every batch."""
    return ops(check_function(function, [{"x": batch} for batch in batches or (A, B)]))


def test_flatten_is_a_reshape() -> None:
    def flatten(x: Any) -> Any:
        shape = tf.shape(x)
        return tf.reshape(x, tf.stack([shape[0], shape[1] * shape[2]]))

    found = ported(flatten)
    assert "reshape" in found
    assert not {"shape", "slice", "stack", "sizes_tensor", "mul"} & set(found)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda s: tf.stack([tf.reduce_prod(s[:2]), s[2]]), id="Prod"),
        pytest.param(lambda s: tf.concat([s[:1], [12]], 0), id="ConcatV2"),
        pytest.param(lambda s: tf.concat([tf.gather(s, [1, 0]), [-1]], 0), id="GatherV2"),
        pytest.param(lambda s: tf.concat([s[::2], [3]], 0), id="stride 2"),
        pytest.param(lambda s: tf.stack([s[-1], -1]), id="negative index"),
        pytest.param(lambda s: tf.slice(s, [1], [2]) * 0 + tf.stack([s[0], 12]), id="Slice, Mul, Add"),
        pytest.param(lambda s: tf.expand_dims(tf.reduce_prod(s), 0), id="ExpandDims"),
        pytest.param(
            lambda s: tf.stack([s[0] // 1, tf.maximum(s[1], 2) * tf.minimum(s[2], 9)]), id="FloorDiv, min, max"
        ),
        pytest.param(lambda s: tf.cast(tf.cast(s, tf.int64), tf.int32)[:2] * tf.constant([1, 4]), id="Cast"),
        pytest.param(lambda s: tf.reshape(tf.reduce_prod(s, keepdims=True), [-1]), id="keep_dims, Reshape"),
        pytest.param(lambda s: tf.stack([tf.squeeze(s[:1]), 12]), id="Squeeze"),
    ],
)
def test_arithmetic_on_shapes_folds(shape: Callable[[Any], Any]) -> None:
    found = ported(lambda x: tf.reshape(x, shape(tf.shape(x))))
    left = {op for op in found if op not in ("reshape", "size") and not op.startswith("size_")}
    assert not left


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda s: tf.stack([s, s]), id="rank 2"),
        pytest.param(lambda s: tf.cast(s, tf.float32) / 8, id="float"),
        pytest.param(lambda s: s > 2, id="comparison"),
        pytest.param(lambda s: tf.reduce_sum(s), id="Sum"),
        pytest.param(lambda s: -s // 2, id="Neg, FloorDiv"),
        pytest.param(lambda s: s[0] - 7, id="negative"),
        pytest.param(lambda s: tf.reduce_prod(tf.gather(s, tf.constant([[0, 1], [2, 2]])), 1), id="GatherV2 of rank 2"),
        pytest.param(lambda s: s[tf.newaxis, 1:], id="newaxis"),
        pytest.param(lambda s: tf.reduce_prod(s[:0]), id="empty"),
        pytest.param(lambda s: tf.unstack(s)[1], id="Unpack"),
    ],
)
def test_what_sizes_are_not_is_a_tensor(shape: Callable[[Any], Any]) -> None:
    ported(lambda x: [shape(tf.shape(x)), x])


def test_int64_shapes_stay_int64() -> None:
    ported(lambda x: [tf.shape(x, tf.int64), tf.shape(x, tf.int64)[0] * 3, tf.size(x, tf.int64)])


def test_sizes_wider_than_int32() -> None:
    """TensorFlow multiplies int64 sizes as int64."""
    ported(lambda x: tf.shape(x, tf.int64)[0] * tf.constant(1 << 40, tf.int64))


def test_an_unknown_rank_falls_back_to_a_tensor() -> None:
    def flatten(x: Any, shape: Any) -> Any:
        y = tf.reshape(x, shape)  # of a rank that only the values tell
        return tf.reshape(y, tf.concat([tf.shape(y)[:1], [-1]], 0)), tf.shape(y)

    shapes = [np.array([6, 4], np.int32), np.array([2, 3, 2, 2], np.int32)]
    program = check_function(flatten, [{"x": A, "shape": shape} for shape in shapes])
    assert "shape" in ops(program)
