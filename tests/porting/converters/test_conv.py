"""Convolutions and pools against TensorFlow. Sums run in another order than TensorFlow's, so floats are bounded, not equal."""

from __future__ import annotations

import numpy as np
import pytest

from tests.witness import Case, case, check_case, port, run, tf, trace

_RANDOM = np.random.default_rng(7)
X = _RANDOM.standard_normal((2, 7, 6, 4)).astype(np.float32)
X3 = _RANDOM.standard_normal((2, 5, 6, 4, 2)).astype(np.float32)
K = _RANDOM.standard_normal((3, 2, 4, 5)).astype(np.float32)
K3 = _RANDOM.standard_normal((3, 2, 2, 2, 3)).astype(np.float32)
LONG = np.ones((7, 2, 4, 5), np.float32)
INTS = _RANDOM.integers(-9, 9, (2, 6, 8, 4)).astype(np.int32)
HOLES = np.where(X > 0.5, np.nan, np.where(X < -0.5, -np.inf, X))
"""Windows with NaN beside numbers, with NaN or -inf alone, and with both."""
HOLES3 = np.where((X3 > 0.4) & (np.arange(4)[:, None] == 0), np.nan, X3)
"""NaN at the first places of windows: behind a number, TensorFlow without oneDNN forgets the number."""
SUM = "a sum of up to 24 products of order 1 in another order"
MEAN = "the same sum and one division"


def _conv(strides: list[int], padding: str, label: str, *, op: str = "Conv2D", x: np.ndarray = X, k: np.ndarray = K,
          dilations: list[int] | None = None, explicit: list[int] | None = None) -> Case:  # fmt: skip
    attrs = {"strides": strides, "padding": padding, "dilations": dilations or [1] * len(strides)}
    if explicit:
        attrs["explicit_paddings"] = explicit
    return case(op, "filter", input=x, filter=k, absolute=1e-5, reason=SUM, attrs=attrs, label=label)


CASES = [
    _conv([1, 1, 1, 1], "SAME", "same"),
    _conv([1, 2, 2, 1], "SAME", "same, strided: asymmetric margins"),
    _conv([1, 2, 2, 1], "VALID", "valid"),
    _conv([1, 1, 1, 1], "SAME", "dilated", dilations=[1, 2, 2, 1]),
    _conv([1, 2, 1, 1], "EXPLICIT", "explicit", explicit=[0, 0, 2, 1, 0, 3, 0, 0]),
    _conv([1, 1, 1, 1], "VALID", "grouped", k=_RANDOM.standard_normal((2, 2, 2, 6)).astype(np.float32)),
    _conv([1, 1, 1, 1], "SAME", "float64", x=X.astype(np.float64), k=K.astype(np.float64)),
    _conv([1, 1, 1, 1], "SAME", "depthwise", op="DepthwiseConv2dNative"),
    _conv([1, 2, 2, 1], "SAME", "depthwise, strided", op="DepthwiseConv2dNative"),
    _conv([1, 1, 2, 2, 1], "SAME", "3d", op="Conv3D", x=X3, k=K3),
    _conv([1, 2, 1, 1, 1], "VALID", "3d, valid", op="Conv3D", x=X3, k=K3),
    *[
        case("Conv2DBackpropInput", "filter", "input_sizes", input_sizes=np.array([2, *size, 4], np.int32), filter=K,
             out_backprop=_RANDOM.standard_normal((2, *out, 5)).astype(np.float32), absolute=1e-5, reason=SUM, free=False,
             attrs={"strides": [1, *strides, 1], "padding": padding, "dilations": [1, 1, 1, 1], **explicit}, label=f"{padding} {strides}")
        for size, out, strides, padding, explicit in (
            ((7, 6), (7, 6), (1, 1), "SAME", {}), ((7, 6), (4, 3), (2, 2), "SAME", {}), ((8, 7), (3, 3), (2, 2), "VALID", {}),
            ((7, 6), (4, 7), (2, 1), "EXPLICIT", {"explicit_paddings": [0, 0, 1, 1, 2, 0, 0, 0]}),
        )
    ],
    case("Conv3DBackpropInputV2", "filter", "input_sizes", input_sizes=np.array([2, 5, 6, 4, 2], np.int32), filter=K3,
         out_backprop=_RANDOM.standard_normal((2, 5, 3, 2, 3)).astype(np.float32), absolute=1e-5, reason=SUM, free=False,
         attrs={"strides": [1, 1, 2, 2, 1], "padding": "SAME"}),
    *[
        case("MaxPool", input=x, attrs={"ksize": [1, 3, 2, 1], "strides": [1, *strides, 1], "padding": padding}, label=f"{padding} {strides} {x.dtype}")
        for x, strides, padding in ((X, (2, 2), "SAME"), (X, (1, 2), "VALID"), (-np.abs(X) - 1, (3, 3), "SAME"), (X.astype(np.float64), (2, 2), "SAME"),
                                    (INTS, (2, 2), "SAME"))
    ],
    case("MaxPool", input=X, attrs={"ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "padding": "EXPLICIT", "explicit_paddings": [0, 0, 1, 0, 1, 1, 0, 0]}),
    *[case("MaxPool", input=HOLES.astype(dtype), attrs={"ksize": [1, 2, 2, 1], "strides": [1, 1, 2, 1], "padding": padding},
           label=f"NaN and -inf {np.dtype(dtype)} {padding}")
      for dtype in (np.float16, np.float32, np.float64) for padding in ("SAME", "VALID")],
    case("MaxPool3D", input=HOLES3, attrs={"ksize": [1, 1, 1, 4, 1], "strides": [1, 1, 1, 1, 1], "padding": "VALID"}, label="NaN before numbers"),
    case("MaxPoolV2", "ksize", "strides", input=X, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], attrs={"padding": "SAME"}),
    case("MaxPool3D", input=X3, attrs={"ksize": [1, 2, 2, 3, 1], "strides": [1, 2, 1, 2, 1], "padding": "SAME"}),
    *[
        case("AvgPool", value=X, attrs={"ksize": [1, 3, 2, 1], "strides": [1, *strides, 1], "padding": padding}, absolute=1e-6, reason=MEAN,
             label=f"{padding} {strides}")
        for strides, padding in (((2, 2), "SAME"), ((1, 2), "VALID"), ((3, 3), "SAME"))
    ],
    case("AvgPool3D", input=X3, attrs={"ksize": [1, 2, 2, 3, 1], "strides": [1, 2, 1, 2, 1], "padding": "SAME"}, absolute=1e-6, reason=MEAN),
    case("AvgPool3D", input=X3, attrs={"ksize": [1, 2, 2, 3, 1], "strides": [1, 2, 1, 2, 1], "padding": "VALID"}, absolute=1e-6, reason=MEAN),
    case("DepthToSpace", input=X, attrs={"block_size": 2}),
    case("DepthToSpace", input=INTS, attrs={"block_size": 2}),
    case("SpaceToDepth", input=INTS, attrs={"block_size": 2}),
    *[case("Dilation2D", "filter", input=(X * 9).astype(dtype), filter=(K[..., 0] * 9).astype(dtype), label=f"{np.dtype(dtype)} {padding} {rate}",
           attrs={"strides": [1, step, 1, 1], "rates": [1, rate, 1, 1], "padding": padding})
      for dtype in (np.float32, np.float64, np.int32) for step, rate in ((1, 1), (2, 1), (1, 2)) for padding in ("SAME", "VALID")],
    *[case("MaxPoolWithArgmax", input=(X * 9).astype(dtype), label=f"{np.dtype(dtype)} {padding} {size} {index.name} {counts}",
           attrs={"ksize": [1, *size, 1], "strides": [1, 2, 1, 1], "padding": padding, "Targmax": index, "include_batch_in_index": counts})
      for dtype in (np.float32, np.float64, np.int64) for size in ((2, 2), (3, 1)) for padding in ("SAME", "VALID")
      for index in (tf.int32, tf.int64) for counts in (False, True)],
    *[case("Conv", "filter", input=X, filter=K, absolute=1e-5, reason=SUM,
           attrs={"strides": [1, 2, 2, 1], "padding": padding, "dilations": [1, 1, 1, 1], "explicit_paddings": explicit,
                  "data_format": "CHANNELS_LAST", "batch_dims": 1, "groups": 1})
      for padding, explicit in (("SAME", []), ("VALID", []), ("EXPLICIT", [0, 0, 1, 2, 0, 1, 0, 0]))],
    case("Conv", "filter", input=X3, filter=K3, absolute=1e-5, reason=SUM, attrs={"strides": [1, 1, 1, 1, 1], "padding": "SAME"}, label="3d"),
    case("SpaceToBatch", "paddings", input=X, paddings=[[1, 1], [0, 3]], attrs={"block_size": 3}),
    case("BatchToSpace", "crops", input=np.arange(48, dtype=np.float32).reshape(8, 3, 2, 1), crops=[[1, 0], [0, 1]], attrs={"block_size": 2}),
    case("SpaceToBatchND", "block_shape", "paddings", input=X, block_shape=[2, 3], paddings=[[1, 0], [0, 3]]),
    case("SpaceToBatchND", "block_shape", input=X[:, :, 0], block_shape=[2], paddings=np.array([[0, 1]], np.int32), free=False, label="paddings computed"),
    case("BatchToSpaceND", "block_shape", "crops", input=_RANDOM.standard_normal((12, 2, 3, 2)), block_shape=[2, 3], crops=[[1, 0], [0, 2]]),
    case("BatchToSpaceND", "block_shape", input=INTS, block_shape=[2], crops=np.array([[0, 1]], np.int32), free=False, label="crops computed"),
]  # fmt: skip


@pytest.mark.parametrize("row", CASES, ids=str)
def test_op(row: Case) -> None:
    check_case(row)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "EXPLICIT"])
def test_channels_first(padding: str) -> None:
    """TensorFlow has no channels-first kernels on the CPU, nor margins or holes of depthwise ones: it runs the same layers its way."""
    explicit = [1, 0, 2, 1]

    def first(x):
        pads = {"explicit_paddings": [0, 0, 0, 0, *explicit]} if padding == "EXPLICIT" else {}
        y = tf.raw_ops.Conv2D(
            input=x, filter=K, strides=[1, 1, 2, 2], padding=padding, data_format="NCHW", dilations=[1, 1, 1, 1], **pads
        )
        y = tf.raw_ops.DepthwiseConv2dNative(input=y, filter=K[:, :, :1].repeat(5, 2), strides=[1, 1, 1, 1], padding="EXPLICIT", data_format="NCHW",
                                             explicit_paddings=[0, 0, 0, 0, 1, 1, 0, 2], dilations=[1, 1, 2, 2])  # fmt: skip
        y = tf.raw_ops.MaxPool(input=y, ksize=[1, 1, 2, 2], strides=[1, 1, 1, 1], padding="SAME", data_format="NCHW")
        return tf.raw_ops.AvgPool(value=y, ksize=[1, 1, 2, 2], strides=[1, 1, 1, 1], padding="SAME", data_format="NCHW")

    def last(x):
        x = tf.transpose(x, [0, 2, 3, 1])
        pads = {"explicit_paddings": [0, 0, *explicit, 0, 0]} if padding == "EXPLICIT" else {}
        y = tf.raw_ops.Conv2D(input=x, filter=K, strides=[1, 2, 2, 1], padding=padding, dilations=[1, 1, 1, 1], **pads)
        y = tf.pad(y, [[0, 0], [1, 1], [0, 2], [0, 0]])
        y = tf.nn.depthwise_conv2d(y, K[:, :, :1].repeat(5, 2), [1, 1, 1, 1], "VALID", dilations=[2, 2])
        y = tf.raw_ops.MaxPool(input=y, ksize=[1, 2, 2, 1], strides=[1, 1, 1, 1], padding="SAME")
        y = tf.raw_ops.AvgPool(value=y, ksize=[1, 2, 2, 1], strides=[1, 1, 1, 1], padding="SAME")
        return tf.transpose(y, [0, 3, 1, 2])

    batch = {"x": np.ascontiguousarray(X.transpose(0, 3, 1, 2))}
    (ours,) = run(port(trace(first, batch), ["x"]), batch).values()
    theirs = last(tf.constant(batch["x"])).numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours.numpy() - theirs).max() < 1e-4  # sums of 24 and 25 products in another order, values up to 50


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_inputs_shorter_than_the_kernel(stride: int) -> None:
    """A size that is known at run time only: a little too short gives no position, shorter ones are refused."""

    def function(x: object) -> object:
        return tf.raw_ops.Conv2D(input=x, filter=LONG, strides=[1, stride, 1, 1], padding="VALID")

    concrete = tf.function(function).get_concrete_function(x=tf.TensorSpec([None, None, 6, 4], tf.float32))
    program = port(concrete, ["x"])
    for rows in range(1, 9):
        x = np.ones((2, rows, 6, 4), np.float32)
        try:
            expected = concrete(x=tf.constant(x)).shape
        except tf.errors.InvalidArgumentError:
            with pytest.raises((RuntimeError, ValueError)):
                run(program, {"x": x})
        else:
            (found,) = run(program, {"x": x}).values()
            assert tuple(found.shape) == tuple(expected), rows
