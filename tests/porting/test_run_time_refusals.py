"""Run-time refusals have TensorFlow's message or ours, never torch's or numpy's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import port_tower
from torch_towers import InputError

tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow is the witness here")

F, I, S = "float32", "int64", "string"  # noqa: E741
Case = tuple[Callable[..., Any], dict[str, tuple[str, Any]], str]

# What is computed, the operands (dtype, value), and what both say of them: TensorFlow's sentence, or ours in brackets.
CASES: dict[str, Case] = {
    "Add": (lambda a, b: a + b, {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, "Incompatible shapes: [2,3] vs. [2,4]"),
    "Mul": (lambda a, b: a * b, {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, "Incompatible shapes: [2,3] vs. [2,4]"),
    "Less": (lambda a, b: a < b, {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, "Incompatible shapes: [2,3] vs. [2,4]"),
    "MatMul": (tf.matmul, {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, "Matrix size-incompatible: In[0]: [2,3], In[1]: [2,4]"),
    "Concat": (lambda a, b: tf.concat([a, b], 0), {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))},
               "ConcatOp : Dimension 1 in both shapes must be equal: shape[0] = [2,3] vs. shape[1] = [2,4]"),
    "Concat of strings": (lambda a, b: tf.concat([a, b], 0), {"a": (S, np.full((2, 3), b"x", object)), "b": (S, np.full((2, 4), b"x", object))},
                          "ConcatOp : Dimension 1 in both shapes must be equal: shape[0] = [2,3] vs. shape[1] = [2,4]"),
    "Pack": (lambda a, b: tf.stack([a, b]), {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))},
             "Shapes of all inputs must match: values[0].shape = [2,3] != values[1].shape = [2,4]"),
    "Reshape": (lambda a: tf.reshape(a, [4, 5]), {"a": (F, np.ones((2, 3)))},
                "Input to reshape is a tensor with 6 values, but the requested shape"),
    "slice": (lambda a: a[:, 0], {"a": (F, np.ones((2, 0)))}, "slice index 0 of dimension 1 out of bounds"),
    "slice of strings": (lambda a: a[3], {"a": (S, np.full((2, 3), b"x", object))}, "slice index 3 of dimension 0 out of bounds"),
    "Squeeze": (lambda a: tf.squeeze(a, [0]), {"a": (F, np.ones((2, 3)))}, "Can not squeeze dim[0], expected a dimension of 1, got 2"),
    "GatherV2": (lambda a, b: tf.gather(a, b), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[1, 5], [0, 0]]))}, "= 5 is not in [0, 2)"),
    "GatherNd": (lambda a, b: tf.gather_nd(a, b), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[1, 5]] * 2))}, "= [1, 5] does not index into param shape [2,3]"),
    "SegmentSum": (lambda a, b: tf.math.segment_sum(a, b[:, 0]), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[1], [0]]))}, "segment ids are not increasing"),
    "UnsortedSegmentSum": (lambda a, b: tf.math.unsorted_segment_sum(a, b[:, 0], 2), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[1], [5]]))}, "= 5 is out of range [0, 2)"),
    "Split": (lambda a: tf.split(a, 3, 1)[0], {"a": (F, np.ones((2, 4)))}, "evenly divide the split dimension"),
    "Unpack": (lambda a: tf.unstack(a, 3, 1)[0], {"a": (F, np.ones((2, 4)))}, ""),
    "BroadcastTo": (lambda a: tf.broadcast_to(a, [3, 3]), {"a": (F, np.ones((2, 3)))}, "Incompatible shapes: [2,3] vs. [3,3]"),
    "Select": (lambda a, b: tf.where(a > 0, a, b), {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, "condition [2,3], then [2,3], and else [2,4] must be broadcastable"),
    "Tile": (lambda a, b: tf.tile(a, b[0]), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[-1, 2]] * 2))}, "Expected multiples[0] >= 0, but got -1"),
    "Fill": (lambda b: tf.fill(b[0], 1.0), {"b": (I, np.array([[-1, 2]] * 2))}, ""),
    "Pad": (lambda a, b: tf.pad(a, [[b[0, 0], 0], [0, 0]]), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[-1, 0]] * 2))}, "Paddings must be non-negative: -1 0"),
    "TopK": (lambda a: tf.math.top_k(a, 5).values, {"a": (F, np.ones((2, 3)))}, "input must have at least k columns. Had 3, needed 5"),
    "Einsum": (lambda a, b: tf.einsum("ij,kj->ik", a, b), {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, ""),
    "BiasAdd": (lambda a, b: tf.nn.bias_add(a, b[0]), {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, ""),
    "FloorDiv": (lambda a, b: a // b, {"a": (I, np.ones((2, 3))), "b": (I, np.zeros((2, 3)))}, "Integer division by zero"),
    "FloorMod": (lambda a, b: a % b, {"a": (I, np.ones((2, 3))), "b": (I, np.zeros((2, 3)))}, "Integer division by zero"),
    "ScatterNd": (lambda a, b: tf.scatter_nd(b, a, [4, 3]), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[1], [5]]))}, "indices[1] = [5] does not index into shape [4,3]"),
    "ReverseSequence": (lambda a, b: tf.reverse_sequence(a, b[0], 1), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[5, 1]] * 2))}, ""),
    "SparseToDense": (lambda a, b: tf.sparse.to_dense(tf.SparseTensor(b, a[:, 0], [2, 2])),
                      {"a": (F, np.ones((2, 3))), "b": (I, np.array([[0, 1], [0, 7]]))}, ""),
    "StringToNumber": (lambda a: tf.strings.to_number(a), {"a": (S, np.full((2, 3), b"x", object))}, "StringToNumberOp could not correctly convert string: x"),
    "StringJoin": (lambda a, b: tf.strings.join([a, b]), {"a": (S, np.full((2, 3), b"x", object)), "b": (S, np.full((2, 4), b"x", object))}, ""),
    "Substr": (lambda a: tf.strings.substr(a, 5, 1), {"a": (S, np.full((2, 3), b"x", object))}, "pos 5 out of range for string b"),
    "DecodeBase64": (lambda a: tf.io.decode_base64(a), {"a": (S, np.full((2, 3), b"?", object))}, "Base64 string length cannot be 1 modulo 4."),
    "Range": (lambda b: tf.range(b[0, 0], b[0, 1], b[0, 2]), {"b": (I, np.array([[0, 5, -1]]))}, ""),
    "DynamicPartition": (lambda a, b: tf.dynamic_partition(a, b[:, 0], 2)[0], {"a": (F, np.ones((2, 3))), "b": ("int32", np.array([[0], [7]]))}, "partitions[1] = 7 is not in [0, 2)"),
    "TensorListGetItem": (lambda b: tf.raw_ops.TensorListGetItem(
        input_handle=tf.raw_ops.TensorListFromTensor(tensor=b, element_shape=[2]), index=tf.cast(b[0, 0], tf.int32),
        element_shape=[2], element_dtype=tf.int64), {"b": (I, np.array([[7, 5]] * 2))}, ""),
    "Slice": (lambda a, b: tf.slice(a, [b[0, 0], 0], [1, 1]), {"a": (F, np.ones((2, 3))), "b": (I, np.array([[7, 5]] * 2))}, "Expected begin[0] in [0, 2], but got 7"),
    "BatchMatMul": (lambda a, b: tf.linalg.matmul(a, b, transpose_b=True), {"a": (F, np.ones((2, 3))), "b": (F, np.ones((2, 4)))}, "Matrix size-incompatible"),
    "Conv2D": (lambda a: tf.nn.conv2d(a, tf.ones([3, 3, 5, 1]), 1, "VALID"), {"a": (F, np.ones((1, 4, 4, 2)))}, ""),
    "TensorListReserve": (lambda b: tf.raw_ops.TensorListLength(input_handle=tf.raw_ops.TensorListReserve(
        element_shape=[2], num_elements=tf.cast(b[0, 0], tf.int32), element_dtype=tf.int64)), {"b": (I, np.array([[-3, 0]]))},
        "The num_elements to reserve must be a non negative number, but got -3"),
    "TensorListResize": (lambda b: tf.raw_ops.TensorListLength(input_handle=tf.raw_ops.TensorListResize(
        input_handle=tf.raw_ops.TensorListFromTensor(tensor=b, element_shape=[2]), size=tf.cast(b[0, 0], tf.int32))),
        {"b": (I, np.array([[-3, 0]]))}, "expects size to be non-negative. Got: -3"),
    "OneHot": (lambda b: tf.one_hot(b, tf.cast(b[0, 0], tf.int32)), {"b": (I, np.array([[-7]]))}, "depth must be non-negative, got: -7"),
}  # fmt: skip

FOREIGN = re.compile(
    r"torch|numpy|ndarray|Tensor\b|size of tensor|must match the size|at non-singleton|mat1|expected (scalar|index)|Sizes of tensors|"
    r"shape '|invalid for input of size|dimension size|out of range \(expected|broadcast together|operands could not|"
    r"list index|index \d+ is out of bounds|stack expects|Traceback|cannot reshape|aten|split_with_sizes|tuple index|"
    r"all input array|array dimensions|ZeroDivision|RuntimeError|The expanded size"
)


@pytest.fixture(scope="module")
def oracle() -> Any:
    with Oracle() as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_refusals(name: str, tmp_path: Path, oracle: Oracle) -> None:
    function, operands, said = CASES[name]
    specs = [tf.TensorSpec([None] * np.ndim(value), dtype, key) for key, (dtype, value) in operands.items()]
    module = tf.Module()
    module.f = tf.function(lambda **given: {"out": function(*given.values())}, input_signature=None)
    signature = module.f.get_concrete_function(**{spec.name: spec for spec in specs})
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": signature})
    batch = {key: value if dtype == S else value.astype(dtype) for key, (dtype, value) in operands.items()}
    model = read(tmp_path)
    (theirs,) = oracle.run(model.path, model.tags, "serving_default", [batch])
    tower = port_tower(model).tower()
    assert isinstance(theirs, str), "TensorFlow takes it"
    with pytest.raises(InputError) as caught:
        tower(batch)
    ours = str(caught.value)
    with contextlib.suppress(InputError):  # the half before the encoder alone
        tower.preprocess(batch)
    assert not FOREIGN.search(ours), ours
    assert said in theirs, theirs
    assert said in ours, (ours, theirs)
