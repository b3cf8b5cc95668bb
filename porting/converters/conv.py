"""Convolutions, pooling, and rearrangements between space, depth and batch."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Dimensions, Sizes
from porting.errors import PortingError
from torch_towers.ops.conv import Padding

Emit = ConvertingEmitter


def _layout(data_format: str) -> tuple[bool, int]:
    """Whether the channels come last, and their axis."""
    last = data_format.endswith("C")
    return last, len(data_format) - 1 if last else 1


def spatial(values: tuple[int, ...], channels: int, where: str, what: str) -> tuple[int, ...]:
    """The spatial part of an attribute with one number per axis; batch and channels must be 1."""
    if not values:
        return (1,) * 2
    if values[0] != 1 or values[channels] != 1:
        raise PortingError(
            f"{where!r}: {what} {list(values)} reach over the batch or the channels, which is not supported"
        )
    return tuple(size for axis, size in enumerate(values) if axis not in (0, channels))


def _padding(padding: str, explicit: tuple[int, ...], channels: int) -> Padding:
    if padding != "EXPLICIT":
        return "SAME" if padding == "SAME" else "VALID"
    pairs = [(explicit[2 * i], explicit[2 * i + 1]) for i in range(len(explicit) // 2)]
    return tuple(pair for axis, pair in enumerate(pairs) if axis not in (0, channels))


def _convolution(
    t: Emit, strides: Any, dilations: Any, padding: str, explicit: Any, data_format: str
) -> dict[str, Any]:
    last, channels = _layout(data_format)
    return {
        "strides": spatial(tuple(strides), channels, t.scope, "strides"),
        "dilations": spatial(tuple(dilations), channels, t.scope, "dilations"),
        "padding": _padding(padding, tuple(explicit), channels),
        "channels_last": last,
    }


@converter("Conv2D", refuses="strides and dilations over the batch or the channels")
def conv2d(t: Emit, x: Any, weight: Any, *, strides: Any, padding: str, explicit_paddings: Any = (),
           data_format: str = "NHWC", dilations: Any = (1, 1, 1, 1)) -> Any:  # fmt: skip
    return t.conv(x, weight, **_convolution(t, strides, dilations, padding, explicit_paddings, data_format))


@converter("DepthwiseConv2dNative", refuses="strides and dilations over the batch or the channels")
def depthwise(t: Emit, x: Any, weight: Any, *, strides: Any, padding: str, explicit_paddings: Any = (),
              data_format: str = "NHWC", dilations: Any = (1, 1, 1, 1)) -> Any:  # fmt: skip
    attrs = _convolution(t, strides, dilations, padding, explicit_paddings, data_format)
    return t.conv(x, weight, **attrs, depthwise=True)


@converter("Conv", refuses="strides and dilations over the batch or the channels, and several batch axes")
def conv_any(t: Emit, x: Any, weight: Any, *, strides: Any, padding: str, explicit_paddings: Any = (), dilations: Any = (),
             data_format: str = "CHANNELS_LAST", batch_dims: int = 1, groups: int = 1) -> Any:  # fmt: skip
    """As many spatial axes as there are strides; the groups follow from the shapes."""
    if batch_dims != 1:
        raise PortingError(f"{t.scope!r} convolves a batch of {batch_dims} axes, which is not supported")
    layout = ("NHWC" if len(strides) == 4 else "NDHWC") if data_format == "CHANNELS_LAST" else "NCHW"
    dilations = dilations or (1,) * len(strides)
    return t.conv(x, weight, **_convolution(t, strides, dilations, padding, explicit_paddings, layout))


@converter("Dilation2D")
def dilation2d(t: Emit, x: Any, weight: Any, *, strides: Any, rates: Any, padding: str) -> Any:
    steps, dilations = (spatial(tuple(values), 3, t.scope, "strides") for values in (strides, rates))
    return t.morphological_dilation(x, weight, strides=steps, dilations=dilations, padding=padding)


@converter("MaxPoolWithArgmax", outputs=("output", "argmax"), refuses="windows over the batch or the channels")
def max_pool_with_argmax(t: Emit, x: Any, *, ksize: Any, strides: Any, padding: str, Targmax: str = "int64",
                         include_batch_in_index: bool = False) -> Any:  # fmt: skip
    size, steps = (spatial(tuple(values), 3, t.scope, "windows") for values in (ksize, strides))
    return t.max_pool_argmax(
        x, size=size, strides=steps, padding=padding, dtype=Targmax, batch_counts=include_batch_in_index
    )


@converter("Conv3D", refuses="strides and dilations over the batch or the channels")
def conv3d(t: Emit, x: Any, weight: Any, *, strides: Any, padding: str, explicit_paddings: Any = (),
           data_format: str = "NDHWC", dilations: Any = (1, 1, 1, 1, 1)) -> Any:  # fmt: skip
    return t.conv(x, weight, **_convolution(t, strides, dilations, padding, explicit_paddings, data_format))


@converter(
    "Conv2DBackpropInput", "Conv3DBackpropInputV2", refuses="strides and dilations over the batch or the channels"
)
def transposed(t: Emit, sizes: Dimensions, weight: Any, x: Any, *, strides: Any, padding: str, explicit_paddings: Any = (),
               data_format: str = "", dilations: Any = ()) -> Any:  # fmt: skip
    data_format = data_format or ("NHWC" if len(strides) == 4 else "NDHWC")
    attrs = _convolution(t, strides, dilations or (1,) * len(strides), padding, explicit_paddings, data_format)
    _, channels = _layout(data_format)
    space = _spatial_sizes(t, sizes, channels, len(strides))
    return t.conv_transpose(x, weight, *space, **attrs)


def _spatial_sizes(t: Emit, sizes: Any, channels: int, rank: int) -> list[Any]:
    """The sizes of the result's spatial axes; `input_sizes` has all axes, or only these."""
    if len(sizes) == rank:
        return [size for axis, size in enumerate(sizes) if axis not in (0, channels)]
    if len(sizes) == rank - 2:
        return list(sizes)
    raise PortingError(
        f"{t.scope!r}: the size of the result must consist of known dimensions, but {sizes!r} is computed"
    )


# -- pools --------------------------------------------------------------------------------------------------------------


def _pool(t: Emit, ksize: Any, strides: Any, padding: str, explicit: Any, data_format: str) -> dict[str, Any]:
    last, channels = _layout(data_format)
    return {
        "size": spatial(tuple(ksize), channels, t.scope, "windows"),
        "strides": spatial(tuple(strides), channels, t.scope, "strides"),
        "padding": _padding(padding, tuple(explicit), channels),
        "channels_last": last,
    }


@converter("MaxPool", refuses="windows over the batch or the channels")
def max_pool(
    t: Emit, x: Any, *, ksize: Any, strides: Any, padding: str, explicit_paddings: Any = (), data_format: str = "NHWC"
) -> Any:
    return t.max_pool(x, **_pool(t, ksize, strides, padding, explicit_paddings, data_format))


@converter("MaxPoolV2", refuses="windows over the batch or the channels")
def max_pool_v2(
    t: Emit, x: Any, ksize: tuple[int, ...], strides: tuple[int, ...], *, padding: str, data_format: str = "NHWC"
) -> Any:
    return t.max_pool(x, **_pool(t, ksize, strides, padding, (), data_format))


@converter("MaxPool3D", refuses="windows over the batch or the channels")
def max_pool_3d(t: Emit, x: Any, *, ksize: Any, strides: Any, padding: str, data_format: str = "NDHWC") -> Any:
    return t.max_pool(x, **_pool(t, ksize, strides, padding, (), data_format))


@converter("AvgPool", refuses="windows over the batch or the channels")
def avg_pool(t: Emit, x: Any, *, ksize: Any, strides: Any, padding: str, data_format: str = "NHWC") -> Any:
    return t.avg_pool(x, **_pool(t, ksize, strides, padding, (), data_format))


@converter("AvgPool3D", refuses="windows over the batch or the channels")
def avg_pool_3d(t: Emit, x: Any, *, ksize: Any, strides: Any, padding: str, data_format: str = "NDHWC") -> Any:
    return t.avg_pool(x, **_pool(t, ksize, strides, padding, (), data_format))


# -- space, depth and batch ---------------------------------------------------------------------------------------------


@converter("DepthToSpace", refuses="data_format NCHW_VECT_C")
def depth_to_space(t: Emit, x: Any, *, block_size: int, data_format: str = "NHWC") -> Any:
    return t.depth_to_space(x, block=block_size, channels_last=_channels_last(t, data_format))


@converter("SpaceToDepth", refuses="data_format NCHW_VECT_C")
def space_to_depth(t: Emit, x: Any, *, block_size: int, data_format: str = "NHWC") -> Any:
    return t.space_to_depth(x, block=block_size, channels_last=_channels_last(t, data_format))


def _channels_last(t: Emit, data_format: str) -> bool:
    if data_format not in ("NHWC", "NCHW"):
        raise PortingError(f"{t.scope!r}: data_format {data_format} is not supported, only NHWC and NCHW are")
    return data_format == "NHWC"


@converter("SpaceToBatchND")
def space_to_batch(t: Emit, x: Any, block: tuple[int, ...], paddings: Any) -> Any:
    return t.space_to_batch(x, *_pairs(t, paddings, len(block)), block=block)


@converter("SpaceToBatch")
def space_to_batch_v1(t: Emit, x: Any, paddings: Any, *, block_size: int) -> Any:
    return space_to_batch(t, x, (block_size, block_size), paddings)


@converter("BatchToSpace")
def batch_to_space_v1(t: Emit, x: Any, crops: Any, *, block_size: int) -> Any:
    return batch_to_space(t, x, (block_size, block_size), crops)


@converter("BatchToSpaceND")
def batch_to_space(t: Emit, x: Any, block: tuple[int, ...], crops: Any) -> Any:
    return t.batch_to_space(x, *_pairs(t, crops, len(block)), block=block)


def _pairs(t: Emit, pairs: Any, rank: int) -> list[Any]:
    """`[rank, 2]` as a flat list of sizes."""
    if isinstance(pairs, Sizes):
        return pairs.items.reshape(-1).tolist()
    if hasattr(pairs, "python"):
        return [size for pair in pairs.python() for size in pair]
    return [t.element(pairs, index=(i, j)) for i in range(rank) for j in range(2)]
