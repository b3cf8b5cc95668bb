"""Lists of tensors against TensorFlow: the ops one by one, in traces that make, fill and read a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.porting.converters.test_control_flow import check_v1
from tests.witness import check_function, port, run, tf, trace
from torch_towers.errors import InputError

X = np.array([[1.5, -2.0, np.nan], [0.5, -0.0, np.inf], [7.0, 8.0, 9.0]], np.float32)
WORDS = np.array([[b"a", b""], [b"\xff", b"c"], [b"d", b"e"]], object)
ROWS: list[Any] = [X, X.astype(np.int64), WORDS]
raw: Any = tf.raw_ops

COVERED = {
    "TensorListReserve", "EmptyTensorList", "TensorListFromTensor", "TensorListScatter", "TensorListScatterV2",
    "TensorListScatterIntoExistingList", "TensorListSetItem", "TensorListGetItem", "TensorListLength", "TensorListPushBack",
    "TensorListPopBack", "TensorListResize", "TensorListConcatLists", "TensorListStack", "TensorListGather", "TensorListConcat",
    "TensorListConcatV2", "TensorListSplit", "TensorArrayV3", "TensorArrayWriteV3", "TensorArrayReadV3", "TensorArrayGatherV3",
    "TensorArrayScatterV3", "TensorArraySizeV3", "TensorArrayConcatV3", "TensorArraySplitV3",
}  # fmt: skip


def inner(x: Any) -> list[int]:
    """The shape of a row."""
    return np.array(x.shape[1:].as_list(), np.int32).tolist() or np.zeros(0, np.int32)


def reserve(x: Any, size: int = 4, shape: Any = None) -> Any:
    return raw.TensorListReserve(element_shape=shape or inner(x), num_elements=size, element_dtype=x.dtype)


def stack(items: Any, x: Any, shape: Any = None) -> Any:
    return raw.TensorListStack(input_handle=items, element_shape=shape or inner(x), element_dtype=x.dtype)


def get(items: Any, index: Any, x: Any) -> Any:
    return raw.TensorListGetItem(input_handle=items, index=index, element_shape=inner(x), element_dtype=x.dtype)


def of(x: Any) -> Any:
    return raw.TensorListFromTensor(tensor=x, element_shape=inner(x))


def written(x: Any) -> list[Any]:
    """Unwritten elements are zeros, or empty strings."""
    items = raw.TensorListSetItem(input_handle=reserve(x), index=2, item=x[0])
    return [stack(items, x), get(items, 0, x), get(items, 2, x), raw.TensorListLength(input_handle=items)]


def free_shape(x: Any) -> list[Any]:
    items = raw.TensorListSetItem(input_handle=reserve(x, 2, [-1]), index=0, item=x[0])
    items = raw.TensorListSetItem(input_handle=items, index=1, item=x[1])
    return [stack(items, x, [-1])]


def grown(x: Any) -> list[Any]:
    items = raw.TensorListSetItem(input_handle=reserve(x, 1), index=3, item=x[1], resize_if_index_out_of_bounds=True)
    return [stack(items, x), raw.TensorListLength(input_handle=items)]


def resized(x: Any) -> list[Any]:
    items = of(x)
    return [stack(raw.TensorListResize(input_handle=items, size=size), x) for size in (1, 3, 5)]


def pushed(x: Any) -> list[Any]:
    items = raw.EmptyTensorList(element_shape=inner(x), max_num_elements=9, element_dtype=x.dtype)
    for i in (0, 2):
        items = raw.TensorListPushBack(input_handle=items, tensor=x[i])
    rest, last = raw.TensorListPopBack(input_handle=items, element_shape=inner(x), element_dtype=x.dtype)
    return [stack(items, x), stack(rest, x), last]


def joined(x: Any) -> list[Any]:
    both = raw.TensorListConcatLists(input_a=of(x), input_b=of(x), element_dtype=x.dtype)
    return [
        stack(both, x),
        raw.TensorListGather(input_handle=both, indices=[5, 0, 0], element_shape=inner(x), element_dtype=x.dtype),
    ]


def scattered(x: Any) -> list[Any]:
    shape = inner(x)
    rows, places = x[:3], [4, 0, 2]
    into = raw.TensorListScatterIntoExistingList(input_handle=of(x[:3]), tensor=rows, indices=[2, 0, 1])
    return [
        stack(raw.TensorListScatterV2(tensor=rows, indices=places, element_shape=shape, num_elements=6), x),
        stack(raw.TensorListScatterV2(tensor=rows, indices=places, element_shape=shape, num_elements=-1), x),
        stack(raw.TensorListScatter(tensor=rows, indices=places, element_shape=shape), x),
        stack(into, x),
    ]  # fmt: skip


def concatenated(x: Any) -> list[Any]:
    shape = [-1, *inner(x)]
    items = raw.TensorListSplit(tensor=x[:3], element_shape=shape, lengths=tf.constant([2, 0, 1], tf.int64))
    second = raw.TensorListConcatV2(
        input_handle=items, element_shape=shape, leading_dims=tf.constant([], tf.int64), element_dtype=x.dtype
    )
    first = raw.TensorListConcat(input_handle=items, element_dtype=x.dtype, element_shape=[None, *shape[1:]])
    return [*second, *first]


def with_gaps(x: Any) -> list[Any]:
    shape = [-1, *inner(x)]
    items = raw.TensorListSetItem(input_handle=reserve(x, 2, shape), index=1, item=x[:1])
    return list(
        raw.TensorListConcatV2(
            input_handle=items, element_shape=shape, leading_dims=tf.constant([2, 1], tf.int64), element_dtype=x.dtype
        )
    )


TRACES: list[Callable[..., Any]] = [
    written,
    free_shape,
    grown,
    resized,
    pushed,
    joined,
    scattered,
    concatenated,
    with_gaps,
]


@pytest.mark.parametrize("rows", ROWS, ids=["float32", "int64", "string"])
@pytest.mark.parametrize("build", TRACES, ids=lambda build: build.__name__)
def test_list(build: Callable[..., Any], rows: np.ndarray) -> None:
    check_function(build, [{"x": rows}, {"x": np.concatenate([rows, rows])}])


def test_list_of_scalars() -> None:
    check_function(lambda x: [stack(of(x), x), get(of(x), 1, x)], [{"x": np.array([b"a", b""], object)}])


def test_reading_past_the_end_is_an_error() -> None:
    function = trace(lambda i, x: get(of(x), i, x), {"i": np.array(0, np.int32), "x": X})
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(i=tf.constant(3), x=tf.constant(X))
    with pytest.raises(InputError, match="element 3"):
        run(port(function, ["i", "x"]), {"i": np.array(3, np.int32), "x": X})


@pytest.mark.parametrize("rows", ROWS, ids=["float32", "int64", "string"])
def test_array(rows: np.ndarray) -> None:
    """The TensorArray of TF1: read, written, gathered, scattered, joined, split."""

    def build(x: Any) -> list[Any]:
        shape = inner(x)
        handle, flow = raw.TensorArrayV3(size=3, dtype=x.dtype, element_shape=shape, dynamic_size=True)
        flow = raw.TensorArrayScatterV3(handle=handle, indices=[1, 0, 2], value=x[:3], flow_in=flow)
        flow = raw.TensorArrayWriteV3(handle=handle, index=3, value=x[0], flow_in=flow)
        read = raw.TensorArrayReadV3(handle=handle, index=1, flow_in=flow, dtype=x.dtype)
        gathered = raw.TensorArrayGatherV3(
            handle=handle, indices=[3, 0], flow_in=flow, dtype=x.dtype, element_shape=shape
        )
        size = raw.TensorArraySizeV3(handle=handle, flow_in=flow)
        other, runs = raw.TensorArrayV3(size=2, dtype=x.dtype)
        runs = raw.TensorArraySplitV3(handle=other, value=x[:3], lengths=tf.constant([1, 2], tf.int64), flow_in=runs)
        value, lengths = raw.TensorArrayConcatV3(handle=other, flow_in=runs, dtype=x.dtype)
        return [read, gathered, size, value, lengths]

    check_v1(build, [{"x": rows}])
