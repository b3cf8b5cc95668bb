"""Shapes, slices, joins, gathers and scatters against TensorFlow, of numbers and strings: bit-exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.errors import PortingError
from tests.saved import check_saved
from tests.witness import Case, case, check_case, check_function, run, tf, to_numpy
from torch_towers.errors import InputError
from torch_towers.ops import array as ops

RNG = np.random.default_rng(0)
NUMBERS = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
WORDS = np.array([f"w{i}".encode() for i in range(24)], object).reshape(4, 3, 2)
EMPTY = np.zeros((0, 3, 2), np.float32)
BOTH = ((NUMBERS, "numbers"), (WORDS, "strings"), (EMPTY, "empty"), (NUMBERS.astype(np.int64), "int64"), (NUMBERS > 9, "bool"),
        (NUMBERS.astype(np.float16), "float16"))  # fmt: skip


def shape_cases() -> list[Case]:
    rows: list[Case] = []
    for x, kind in BOTH:
        rows += [
            case("Reshape", "shape", tensor=x, shape=shape, label=f"{kind} {shape}")
            for shape in ([-1, 6], [-1, 2, 3], [-1, 3, 2])
        ]
        rows += [
            case("Transpose", "perm", x=x, perm=perm, label=f"{kind} {perm}")
            for perm in ([1, 0, 2], [2, 1, 0], [0, 1, 2])
        ]
        rows += [case("ExpandDims", "axis", input=x, axis=axis, label=f"{kind} {axis}") for axis in (0, 1, -1, -4)]
        rows.append(case("Squeeze", input=x[:, :1, :1], attrs={"axis": [1, -1]}, label=kind))
        rows.append(case("Tile", "multiples", input=x, multiples=[1, 2, 3], label=kind))
        rows.append(case("ZerosLike", x=x, label=kind))
        rows.append(case("ReverseV2", "axis", tensor=x, axis=[0, -1], label=kind))
        rows.append(case("ReverseV2", "axis", tensor=x, axis=np.zeros(0, np.int32), label=f"{kind} no axes"))
    rows += [
        case("Reshape", "shape", tensor=np.float32(3), shape=[1, 1], label="scalar"),
        case("Reshape", "shape", tensor=NUMBERS[:1, :1, :1], shape=np.zeros(0, np.int32), free=False, label="to a scalar"),
        case("Reshape", tensor=NUMBERS, shape=np.array([6, -1]), batched=False, label="run-time shape"),
        case("Reshape", tensor=WORDS, shape=np.array([6, -1]), batched=False, label="run-time shape of strings"),
        case("Squeeze", input=NUMBERS[:, :1], label="all", free=False),
        case("Squeeze", input=NUMBERS[:1, :1], label="all of unknown", batched=False),
        case("Squeeze", input=WORDS[:1, :1], label="all of unknown strings", batched=False),
        case("BroadcastTo", "shape", input=NUMBERS, shape=[5, 4, 3, 2], batched=False, free=False),
        case("BroadcastTo", "shape", input=WORDS[0], shape=[5, 3, 2], batched=False, free=False, label="strings"),
        case("BroadcastTo", input=NUMBERS[0], shape=np.array([5, 3, 2]), batched=False, free=False, label="run-time shape"),
        case("Fill", "value", dims=np.array([2, 3]), value=np.int64(7), batched=False, free=False),
        case("Fill", "value", dims=np.array([2, 0]), value=b"x", batched=False, free=False, label="strings"),
        case("Fill", "dims", dims=[2, 3], value=np.float32(1.5), label="fixed"),
        case("Fill", "dims", dims=np.array([2], np.int64), value=np.float32(1.5), attrs={}, label="int64"),
        case("OnesLike", x=NUMBERS), case("OnesLike", x=NUMBERS > 2, label="bool"), case("OnesLike", x=EMPTY, label="empty"),
        case("BroadcastArgs", "s1", s0=np.array([3, 1, 4]), s1=[1, 5, 1], batched=False, free=False),
        case("BroadcastArgs", s0=np.array([4]), s1=np.array([2, 1]), batched=False, free=False, label="ranks"),
        case("Tile", input=NUMBERS, multiples=np.array([2, 1, 3]), batched=False, free=False, label="run-time"),
        case("Tile", "multiples", input=WORDS, multiples=[0, 1, 1], label="no strings"),
    ]  # fmt: skip
    return rows


def join_cases() -> list[Case]:
    rows: list[Case] = []
    for x, kind in BOTH:
        for axis in (0, 1, -1):
            rows.append(case("ConcatV2", "axis", values=(x, x[..., ::-1].copy()), axis=axis, label=f"{kind} {axis}"))
            rows.append(case("Pack", values=(x, x), attrs={"axis": axis}, label=f"{kind} {axis}"))
        rows += [case("Unpack", value=x, attrs={"num": 3, "axis": axis}, label=f"{kind} {axis}") for axis in (1, -2)]
        rows.append(case("Split", "axis", axis=1, value=x, attrs={"num_split": 3}, label=kind))
        rows.append(case("Split", "axis", axis=-1, value=x, attrs={"num_split": 1}, label=f"{kind} one"))
        rows.append(
            case(
                "SplitV",
                "size_splits",
                "axis",
                value=x,
                size_splits=[1, -1, 0],
                axis=1,
                attrs={"num_split": 3},
                label=kind,
            )
        )
    rows += [
        case("Split", "axis", axis=0, value=NUMBERS, attrs={"num_split": 2}, label="of the free axis"),
        case("Concat", "concat_dim", concat_dim=1, values=(NUMBERS, NUMBERS)),
        case("ConcatV2", "axis", values=(NUMBERS, np.zeros((4, 0, 2), np.float32)), axis=1, label="with nothing"),
        case("Pack", values=(np.float32(1), np.float32(2)), attrs={"axis": 0}, label="scalars"),
        case(
            "Pack", values=(np.array(b"a", object), np.array(b"b", object)), attrs={"axis": 0}, label="scalar strings"
        ),
    ]
    return rows


def gather_cases() -> list[Case]:
    rows: list[Case] = []
    ids = np.array([[2, 0], [1, 1], [0, 2], [2, 2]])
    for x, kind in BOTH[:2] + BOTH[3:]:
        for axis in (0, 1, -1):
            index = ids % x.shape[axis]
            rows += [case("GatherV2", "axis", params=x, indices=index.astype(d), axis=axis, label=f"{kind} {axis} {np.dtype(d).name}")
                     for d in (np.int32, np.int64)]  # fmt: skip
        rows.append(
            case("GatherV2", "axis", params=x, indices=ids % 3, axis=1, attrs={"batch_dims": 1}, label=f"{kind} batch")
        )
        rows.append(
            case(
                "GatherV2",
                "axis",
                params=x,
                indices=ids % 2,
                axis=2,
                attrs={"batch_dims": 1},
                label=f"{kind} batch, later axis",
            )
        )
        rows.append(
            case(
                "GatherV2",
                "axis",
                params=x,
                indices=ids % 2,
                axis=-1,
                attrs={"batch_dims": -1},
                label=f"{kind} negative batch",
            )
        )
        rows.append(case("GatherV2", "axis", params=x, indices=np.int64(1), axis=1, label=f"{kind} scalar"))
        rows.append(
            case("GatherV2", "axis", params=x, indices=np.zeros((0,), np.int64), axis=1, label=f"{kind} nothing")
        )
        rows.append(case("Gather", params=x, indices=ids, label=kind))
        pairs = np.array([[[0, 2], [3, 1]], [[1, 1], [2, 0]]])
        rows += [case("GatherNd", params=x, indices=pairs[..., :k], label=f"{kind} {k}") for k in (0, 1, 2)]
        rows.append(case("GatherNd", params=x, indices=np.array([[0, 2, 1], [3, 0, 0]], np.int32), label=f"{kind} 3"))
        update = x[:2, 0]
        rows.append(
            case(
                "TensorScatterUpdate",
                tensor=x,
                indices=np.array([[0, 2], [3, 1]]),
                updates=update,
                free=False,
                label=kind,
            )
        )
    rows += [
        case("GatherV2", "params", "axis", params=NUMBERS, indices=ids, axis=0, label="constant params"),
        case("GatherV2", "params", "axis", params=WORDS[:, 0, 0], indices=ids, axis=0, label="constant strings"),
        case("GatherV2", "indices", "axis", params=NUMBERS, indices=[2, 0], axis=1, label="constant indices"),
        case("ScatterNd", "shape", indices=np.array([[1], [3], [1]]), updates=NUMBERS[:3], shape=np.array([5, 3, 2]), free=False),
        case("ScatterNd", indices=np.array([[1], [3]]), updates=np.array([5, 6]), shape=np.array([4]), free=False, label="run-time shape"),
        case("ScatterNd", "shape", indices=np.array([[1, 0], [0, 1]]), updates=[b"x", b"y"], shape=np.array([2, 2]), free=False, label="strings"),
        case("ScatterNd", "shape", indices=np.array([[1], [1]]), updates=np.array([True, True]), shape=np.array([3]), free=False, label="bool"),
        case("InvertPermutation", x=np.array([3, 0, 2, 1], np.int32), batched=False),
    ]  # fmt: skip
    for op in ("TensorScatterAdd", "TensorScatterSub", "TensorScatterMax", "TensorScatterMin"):
        x, updates = NUMBERS[:, 0] - 5, np.array([[9, -9], [1, 2], [-30, 30]], np.float32)
        rows.append(case(op, tensor=x, indices=np.array([[1], [3], [1]]), updates=updates, free=False))
        rows.append(
            case(
                op,
                tensor=x.astype(np.int32),
                indices=np.array([[1], [3], [1]], np.int32),
                updates=updates.astype(np.int32),
                free=False,
                label="int32",
            )
        )
    for axis in (0, 1, -1):
        for kind in (np.float32, np.int64, np.bool_):
            rows.append(case("OneHot", "depth", "on_value", "off_value", indices=ids - 1, depth=3, on_value=kind(1), off_value=kind(0),
                             attrs={"axis": axis}, label=f"{axis} {np.dtype(kind).name}"))  # fmt: skip
    rows.append(case("OneHot", "on_value", "off_value", indices=ids, depth=np.int32(4), on_value=np.float32(5), off_value=np.float32(-1),
                     attrs={"axis": -1}, label="run-time depth"))  # fmt: skip
    rows.append(case("OneHot", "depth", "on_value", "off_value", indices=np.array([0, 255], np.uint8), depth=3, on_value=1.0, off_value=0.0,
                     attrs={"axis": -1}, label="uint8"))  # fmt: skip
    return rows


def range_cases() -> list[Case]:
    constant = ("start", "limit", "delta")
    rows = [
        case("Range", *constant, start=a, limit=b, delta=c, label=f"{a!r} {b!r} {c!r}")
        for a, b, c in (
            (np.int32(0), np.int32(5), np.int32(1)), (np.int64(5), np.int64(-3), np.int64(-2)), (np.int32(3), np.int32(3), np.int32(1)),
            (np.float32(0), np.float32(1), np.float32(0.1)), (np.float64(0), np.float64(1), np.float64(0.1)), (np.float32(1), np.float32(-1), np.float32(-0.3)),
        )
    ]  # fmt: skip
    rows += [
        case("Range", start=np.int32(1), limit=np.int32(9), delta=np.int32(3), label="run-time"),
        case(
            "Range", "start", "delta", start=np.int64(0), limit=np.int64(4), delta=np.int64(1), label="run-time limit"
        ),
        case(
            "LinSpace", "num", start=np.float32(-1), stop=np.float32(2.3), num=7, ulp=1, reason="one fused multiply-add"
        ),
        case("LinSpace", "num", start=np.float64(-1), stop=np.float64(2.3), num=1),
        case(
            "LinSpace",
            "start",
            "stop",
            "num",
            start=np.float32(0),
            stop=np.float32(1),
            num=11,
            ulp=1,
            reason="one fused multiply-add",
        ),
    ]
    return rows


def slice_cases() -> list[Case]:
    rows: list[Case] = []
    for x, kind in BOTH[:3]:
        for begin, size in (
            ([0, 1, 0], [-1, 2, -1]),
            ([0, 0, 1], [-1, 3, 1]),
            ([0, 0, 0], [-1, -1, -1]),
            ([0, 2, 0], [0, -1, 2]),
        ):
            rows.append(case("Slice", "begin", "size", input=x, begin=begin, size=size, label=f"{kind} {begin} {size}"))
    rows.append(
        case(
            "Slice",
            input=NUMBERS,
            begin=np.array([1, 0, 1]),
            size=np.array([2, -1, 1]),
            batched=False,
            free=False,
            label="run-time",
        )
    )
    rows.append(
        case(
            "Slice",
            "size",
            input=WORDS,
            begin=np.array([1, 0, 1]),
            size=[-1, 2, 1],
            batched=False,
            free=False,
            label="run-time begin",
        )
    )
    for x, kind in BOTH[:2]:
        rows.append(case("Roll", "shift", "axis", input=x, shift=[1, -2], axis=[1, -1], label=kind) if kind == "numbers" else
                    case("Tile", "multiples", input=x, multiples=[1, 1, 1], label="once"))  # fmt: skip
    rows += [
        case("Roll", "shift", "axis", input=NUMBERS, shift=2, axis=1, label="one axis"),
        case("Reverse", "dims", tensor=NUMBERS, dims=[True, False, True], label="by flags"),
        case("ReverseSequence", input=NUMBERS, seq_lengths=np.array([3, 0, 1, 2]), attrs={"seq_dim": 1}),
        case(
            "ReverseSequence",
            input=NUMBERS,
            seq_lengths=np.array([4, 1, 2]),
            attrs={"seq_dim": 0, "batch_dim": 1},
            free=False,
        ),
        case(
            "ReverseSequence", input=NUMBERS, seq_lengths=np.array([1, 2, 2, 0]), attrs={"seq_dim": 2, "batch_dim": 0}
        ),
    ]
    for kind in (np.float32, np.int64, np.bool_):
        rows.append(
            case(
                "Pad",
                "paddings",
                input=NUMBERS.astype(kind),
                paddings=[[0, 0], [1, 2], [0, 1]],
                label=np.dtype(kind).name,
            )
        )
    rows += [
        case("PadV2", "paddings", "constant_values", input=NUMBERS, paddings=[[1, 0], [0, 2], [0, 0]], constant_values=np.float32(-7)),
        case("PadV2", "paddings", "constant_values", input=NUMBERS.astype(np.int64), paddings=[[0, 0], [0, 2], [0, 0]], constant_values=np.int64(-1)),
        case("PadV2", "constant_values", input=NUMBERS, paddings=np.array([[0, 1], [0, 0], [2, 0]]), constant_values=np.float32(9),
             batched=False, free=False, label="run-time paddings"),
        case("Pad", "paddings", input=EMPTY, paddings=[[0, 1], [0, 0], [0, 0]], label="empty"),
    ]  # fmt: skip
    for mode in ("REFLECT", "SYMMETRIC"):
        rows.append(
            case("MirrorPad", "paddings", input=NUMBERS, paddings=[[0, 0], [2, 1], [1, 0]], attrs={"mode": mode})
        )
        rows.append(
            case(
                "MirrorPad",
                "paddings",
                input=NUMBERS.astype(np.int32),
                paddings=[[0, 0], [0, 2], [0, 0]],
                attrs={"mode": mode},
                label=f"{mode} int32",
            )
        )
    return rows


COVERED = {
    "StridedSlice", "ResourceGather", "ResourceGatherNd", "DataFormatVecPermute", "DataFormatDimMap", "ConcatOffset", "ParallelConcat",
    "DeepCopy", "GuaranteeConst", "Print", "Empty", "ConjugateTranspose",
}  # fmt: skip
CASES = [*shape_cases(), *join_cases(), *gather_cases(), *range_cases(), *slice_cases()]


@pytest.mark.parametrize("row", CASES, ids=str)
def test_equals_tensorflow(row: Case) -> None:
    check_case(row)


INDEXINGS: dict[str, Callable[[Any], Any]] = {
    "[:, 0]": lambda x: x[:, 0],
    "[1]": lambda x: x[1],
    "[:, -1]": lambda x: x[:, -1],
    "[..., 1]": lambda x: x[..., 1],
    "[1:, ..., 0]": lambda x: x[1:, ..., 0],
    "[:, tf.newaxis, 1:3]": lambda x: x[:, tf.newaxis, 1:3],
    "[..., tf.newaxis]": lambda x: x[..., tf.newaxis],
    "[:, ::2]": lambda x: x[:, ::2],
    "[:, ::-1]": lambda x: x[:, ::-1],
    "[:, 2:0:-1]": lambda x: x[:, 2:0:-1],
    "[:, -2:]": lambda x: x[:, -2:],
    "[:, :99]": lambda x: x[:, :99],
    "[:, 2:1]": lambda x: x[:, 2:1],
    "[:-1]": lambda x: x[:-1],
    "[::-2]": lambda x: x[::-2],
    "[3:]": lambda x: x[3:],
    "[-3:-1, 1, ::-1]": lambda x: x[-3:-1, 1, ::-1],
    "[0, 0, 0]": lambda x: x[0, 0, 0],
    "[:2]": lambda x: x[:2],
}


@pytest.mark.parametrize("index", INDEXINGS)
@pytest.mark.parametrize("x", [NUMBERS, WORDS], ids=["numbers", "strings"])
def test_indexing(index: str, x: np.ndarray) -> None:
    check_function(lambda x: INDEXINGS[index](x), [{"x": x}, {"x": np.concatenate([x, x])}])


def test_indexing_with_run_time_bounds() -> None:
    def build(x: Any, n: Any) -> Any:
        return x[: tf.shape(x)[0] - 1], x[n:], x[:, n], x[:, : tf.shape(x)[1]], x[n : n + 2, ::-1]

    check_function(build, [{"x": NUMBERS, "n": np.int32(1)}, {"x": NUMBERS, "n": np.int32(0)}])
    check_function(build, [{"x": WORDS, "n": np.int32(1)}])


def test_an_index_out_of_bounds_is_refused_as_tensorflow_refuses_it() -> None:
    program = check_function(lambda x: x[3], [{"x": NUMBERS}])
    with pytest.raises(InputError, match="slice index 3 of dimension 0 out of bounds"):
        run(program, {"x": NUMBERS[:3]})


@pytest.mark.parametrize("x", [NUMBERS, WORDS], ids=["numbers", "strings"])
def test_a_gather_out_of_range_is_refused_as_tensorflow_refuses_it(x: np.ndarray) -> None:
    program = check_function(lambda x, i: tf.gather(x, i), [{"x": x, "i": np.array([[0, 3]])}])
    for bad in (-1, 4):
        with pytest.raises(InputError, match=rf"indices\[0,1\] = {bad} is not in \[0, 4\)"):
            run(program, {"x": x, "i": np.array([[0, bad]])})


def test_rows_of_indices_out_of_range_are_refused_as_tensorflow_refuses_them() -> None:
    program = check_function(lambda x, i: tf.gather_nd(x, i), [{"x": NUMBERS, "i": np.array([[0, 1], [3, 2]])}])
    with pytest.raises(InputError, match=r"indices\[1\] = \[3, 9\] does not index into param shape \[4,3,2\]"):
        run(program, {"x": NUMBERS, "i": np.array([[0, 1], [3, 9]])})
    program = check_function(lambda i: tf.scatter_nd(i, tf.ones(tf.shape(i)[0]), [4]), [{"i": np.array([[0], [3]])}])
    with pytest.raises(InputError, match=r"indices\[1\] = \[4\] does not index into shape \[4\]"):
        run(program, {"i": np.array([[0], [4]])})


def test_a_gather_that_cannot_fail_has_no_check() -> None:
    table = tf.constant(RNG.normal(size=(4, 2)).astype(np.float32))

    def build(x: Any) -> Any:
        return tf.gather(table, tf.expand_dims(tf.raw_ops.Bucketize(input=x, boundaries=[0.0, 1.0, 2.0]), 1))

    program = check_function(build, [{"x": np.array([-1.0, 0.5, 9.0], np.float32)}])
    assert "in_range" not in {node.op for node in program.graph.nodes}


def test_a_slice_that_is_not_there_is_refused_as_tensorflow_refuses_it() -> None:
    program = check_function(lambda x: tf.slice(x, [1, 0, 0], [3, -1, -1]), [{"x": NUMBERS}])
    with pytest.raises(InputError, match=r"Expected size\[0\] in \[0, 2\], but got 3"):
        run(program, {"x": NUMBERS[:3]})


def test_a_reshape_that_does_not_fit_is_refused() -> None:
    program = check_function(lambda x: tf.reshape(x, [2, -1]), [{"x": NUMBERS}])
    with pytest.raises(InputError, match="Input to reshape is a tensor with 3 values"):
        run(program, {"x": NUMBERS[:3, :1, :1]})


def test_shape_arithmetic_keeps_shapes_known() -> None:
    def build(x: Any) -> Any:
        batch, length = tf.unstack(tf.shape(x))[:2]
        flat = tf.reshape(x, [batch * length, 2])
        back = tf.reshape(flat @ tf.ones([2, 5]), [batch, length, 5])
        steps = tf.range(batch)
        return back, tf.cast(steps, tf.float32) + back[:, 0, 0], tf.broadcast_to(tf.constant(b"pad"), [batch, 2])

    program = check_function(build, [{"x": NUMBERS}, {"x": NUMBERS[:1]}, {"x": EMPTY}])
    assert not any(node.op == "shape" for node in program.graph.nodes)


def test_a_free_squeeze_drops_a_batch_of_one_as_tensorflow_does() -> None:
    program = check_function(lambda x: tf.squeeze(x), [{"x": NUMBERS[:, :1]}])
    assert [value.shape for value in run(program, {"x": NUMBERS[:1, :1]}).values()] == [(2,)]


def test_float_ranges_of_run_time_bounds_are_refused() -> None:
    with pytest.raises(PortingError, match="known only at run time"):
        check_function(lambda n: tf.range(0.0, n, 1.0), [{"n": np.float32(3)}])


def test_an_in_range_check_survives_compilation() -> None:
    compiled = torch.compile(lambda i: ops.in_range(i, 4) + 1, fullgraph=True, backend="eager")
    assert compiled(torch.tensor([0, 3])).tolist() == [1, 4]
    with pytest.raises((RuntimeError, AssertionError), match="not in"):
        compiled(torch.tensor([0, 4]))


INDEX = st.one_of(
    st.builds(slice, *[st.one_of(st.none(), st.integers(-6, 6))] * 2, st.sampled_from([None, 1, 2, -1, -2])),
    st.just(Ellipsis),
    st.just(None),
    st.integers(-2, 1),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(INDEX, min_size=1, max_size=4), st.booleans())
def test_any_indexing(index: list[Any], of_strings: bool) -> None:
    if index.count(Ellipsis) > 1 or sum(1 for item in index if item is not None and item is not Ellipsis) > 3:
        return
    x = WORDS if of_strings else NUMBERS
    key = tuple(tf.newaxis if item is None else item for item in index)
    expected = to_numpy(tf.constant(x)[key])
    program = check_function(lambda x: x[key], [{"x": x}])
    (found,) = run(program, {"x": x}).values()
    assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_gathers_from_a_variable(tmp_path: Path, batch_dims: int) -> None:
    def look_up(table: Any, ids: Any) -> list[Any]:
        wide = tf.raw_ops.ResourceGather(resource=table.handle, indices=ids, dtype=tf.float32, batch_dims=batch_dims)
        return [wide, tf.raw_ops.ResourceGatherNd(resource=table.handle, indices=ids, dtype=tf.float32)]

    ids = np.array([[1, 0], [2, 1], [0, 2], [3, 0]])
    program = check_saved(tmp_path, lambda: tf.Variable(NUMBERS), look_up, ids % 3 if batch_dims else ids)
    with pytest.raises(InputError, match=r"indices\[0(,1\] = -1 is not in \[0, |\] = \[0, -1\] does not index)"):
        run(program, {"x": np.array([[0, -1], [0, 0], [0, 0], [0, 0]])})


def test_sizes_that_are_split() -> None:
    """What `tf.signal.frame` writes: a shape cut into outer and inner sizes, and zeros as many as axes."""

    def build(x: Any) -> Any:
        outer, last = tf.split(tf.shape(x), [1, -1], 0)
        first, second = tf.split(tf.shape(x), 2, 0)
        begin = tf.zeros_like(tf.shape(x))
        y = tf.reshape(x, tf.concat([outer, [2], last // 2], 0))
        return (
            y[..., tf.newaxis],
            tf.reshape(x, tf.concat([second, first], 0)),
            tf.strided_slice(x, begin, [1, 2]) + 0.0,
        )

    check_function(build, [{"x": NUMBERS.reshape(-1, 6)}, {"x": NUMBERS.reshape(-1, 6)[:1]}])


def test_shifts_and_padding_known_at_run_time() -> None:
    def build(x: Any, value: Any) -> Any:
        size = tf.shape(x)[0]
        return (
            tf.roll(x, size // 2, 0),
            tf.roll(x, [size, 1], [0, 1]),
            tf.pad(x, [[1, 0], [0, 2]], constant_values=value),
        )

    x = NUMBERS.reshape(-1, 6)
    check_function(build, [{"x": x, "value": np.float32(-7)}, {"x": x[:3], "value": np.float32("nan")}])


def test_a_range_of_floats_up_to_a_size() -> None:
    """As KerasHub counts places: whole numbers of a float dtype."""

    def build(x: Any) -> Any:
        size = tf.shape(x)[0]
        return (
            tf.range(0.0, tf.cast(size, tf.float32), 1.0),
            tf.range(1.0, tf.cast(size + 4, tf.float32), 2.0),
        )

    x = NUMBERS.reshape(-1, 6)
    check_function(build, [{"x": x}, {"x": x[:1]}, {"x": x[:0]}])


def test_what_the_optimizer_and_old_graphs_write() -> None:
    """Layouts, offsets and copies."""

    def build(x: Any, axes: Any) -> Any:
        shape = tf.shape(x)
        raw = tf.raw_ops
        return (
            raw.DataFormatVecPermute(x=shape[:4]), raw.DataFormatVecPermute(x=shape, src_format="NCHW", dst_format="NHWC"),
            raw.DataFormatVecPermute(x=tf.stack([shape, shape], 1)), raw.DataFormatVecPermute(x=shape[1:3]),
            raw.DataFormatDimMap(x=axes),
            raw.DataFormatDimMap(x=tf.cast(axes, tf.int64), src_format="NCHW", dst_format="NHWC"),
            raw.ConcatOffset(concat_dim=2, shape=[shape, shape * [1, 1, 2, 1], shape]),
            raw.DeepCopy(x=x), raw.GuaranteeConst(input=x),
            raw.Print(input=x, data=[x], first_n=0), raw.Empty(shape=[2, 0], dtype=tf.float32), raw.Empty(shape=shape, dtype=tf.int32, init=True),
            raw.Empty(shape=shape[:1], dtype=tf.string, init=True),
        )  # fmt: skip

    x = np.arange(60, dtype=np.float32).reshape(2, 3, 2, 5)
    check_function(build, [{"x": x, "axes": np.array([0, -1, 2, 3, -4], np.int32)}])
    parts = [x[:1], x[1:]]
    for count in (1, 2):
        joined = lambda x, y: tf.raw_ops.ParallelConcat(values=[x, y][:count], shape=[count, 3, 2, 5])  # noqa: E731, B023
        check_function(joined, [{"x": parts[0], "y": parts[1]}], free=False)


def test_the_transpose_of_complex_numbers() -> None:
    z = NUMBERS + 1j * NUMBERS[::-1]
    check_function(lambda x: tf.raw_ops.ConjugateTranspose(x=x, perm=[2, 0, 1]), [{"x": z.astype(np.complex64)}])
    check_function(lambda x: tf.raw_ops.ConjugateTranspose(x=x, perm=[2, 0, 1]), [{"x": NUMBERS}])
