"""Convolutions and pooling in TensorFlow's layouts: `[batch, *space, channels]`, or channels first; kernels `[*space,
in, out]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from torch_towers.graph.registry import Spec, op
from torch_towers.kernels.fast_path import readable

Padding = Literal["SAME", "VALID"] | tuple[tuple[int, int], ...]
"""`"SAME"`, `"VALID"`, or (before, after) for each spatial axis."""


def checked_padding(padding: Padding) -> Padding:
    """`padding` of a layer's arguments, as tuples. Errors: `ValueError` for another word."""
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ValueError(f'padding is {padding!r}, expected "SAME", "VALID" or (before, after) for each axis')
    return padding if isinstance(padding, str) else tuple((a, b) for a, b in padding)


_CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL: dict[int, Any] = {2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Any] = {2: F.avg_pool2d, 3: F.avg_pool3d}


def window_reach(kernel: int, dilation: int) -> int:
    """The number of input positions that a window spans, including dilation."""
    return (kernel - 1) * dilation + 1


def window_margins(
    sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], padding: Padding
) -> list[tuple[int, int]]:
    """Padding before and after each spatial axis. SAME puts an odd pixel at the end, and depends on the input's
    size."""
    if isinstance(padding, tuple):
        return list(padding)
    if padding == "VALID":
        return [(0, 0)] * len(reach)
    margins: list[tuple[int, int]] = []
    for size, need, stride in zip(sizes, reach, strides, strict=True):
        if stride == 1:  # independent of the size
            margins.append(((need - 1) // 2, need - 1 - (need - 1) // 2))
            continue
        outputs = (size + stride - 1) // stride
        total = max((outputs - 1) * stride + need - size, 0)
        margins.append((total // 2, total - total // 2))
    return margins


def pad_axes(x: Tensor, margins: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """`x` with its last axes padded; a negative margin crops."""
    flat = [size for margin in reversed(margins) for size in margin]
    return x if all(_is(size, 0) for size in flat) else F.pad(x, flat, value=value)


def _is(size: Any, number: int) -> bool:
    """Whether a size is a number. One that an exported graph computes is none: a comparison would fix the image's size."""
    return isinstance(size, int) and size == number


def window_sizes(sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], padding: Padding) -> list[int]:
    """The spatial sizes of the result."""
    return [_out_size(size, reach[axis], strides[axis], padding, axis) for axis, size in enumerate(sizes)]


def _out_size(size: int, reach: int, stride: int, padding: Padding, axis: int) -> int:
    if padding == "SAME":
        return -(-size // stride)
    before, after = padding[axis] if isinstance(padding, tuple) else (0, 0)
    return max((size + before + after - reach) // stride + 1, 0)


def _spec(
    x: Spec, reach: Sequence[Any], strides: Sequence[int], padding: Padding, channels: Any, channels_last: bool
) -> list[Spec]:
    """Infers the result: the input's batch, and spatial sizes that follow from the input's."""
    if x[1] is None or any(not isinstance(size, int) for size in reach):
        return [(x[0], (None,) * (len(reach) + 2))]
    space = x[1][1:-1] if channels_last else x[1][2:]
    sizes = [
        _out_size(size, reach[axis], strides[axis], padding, axis) if isinstance(size, int) else None
        for axis, size in enumerate(space)
    ]
    return [(x[0], (x[1][0], *sizes, channels) if channels_last else (x[1][0], channels, *sizes))]


def _infer_conv(
    x: Spec, weight: Spec, *, strides: Any, padding: Any, dilations: Any, channels_last: bool, depthwise: bool = False
) -> list[Spec]:
    if weight[1] is None:
        return [(x[0], None)]
    *space, inputs, outputs = weight[1]
    channels = outputs
    if depthwise:
        channels = inputs * outputs if isinstance(inputs, int) and isinstance(outputs, int) else None
    reach = [window_reach(k, d) if isinstance(k, int) else None for k, d in zip(space, dilations, strict=True)]
    return _spec(x, reach, strides, padding, channels, channels_last)


def _nothing(x: Tensor, channels: int, space: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> Tensor:
    """An empty result if the input is slightly shorter than the kernel: TensorFlow rounds the size towards 0, PyTorch
    raises.

    Source: tensorflow/core/framework/kernel_shape_util.cc, GetWindowedOutputSizeVerbose.
    """
    sizes = [max((size - need) // step + 1, 0) for size, need, step in zip(space, reach, strides, strict=True)]
    return x.new_zeros(x.shape[0], channels, *sizes)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, strides: Sequence[int], padding: Padding, dilations: Sequence[int], groups: int
) -> Tensor:  # fmt: skip
    """`x` convolved in PyTorch's layouts with TensorFlow's padding: `[batch, in, *space], [out, in / groups, *kernel]
    -> [batch, out, *space']`."""
    kernel = weight.shape[2:]
    if len(kernel) == 1 and x.stride(1) == 1 and readable(x):
        return _convolve_row(x, weight, bias, strides, padding, dilations, groups)
    reach = [window_reach(k, d) for k, d in zip(kernel, dilations, strict=True)]
    margins = window_margins(x.shape[2:], reach, strides, padding)
    if all(
        _is(after, before) and before >= 0 for before, after in margins
    ):  # the convolution pads symmetrically itself, without a copy
        added, sizes = (
            [before for before, _ in margins],
            [s + 2 * m for s, (m, _) in zip(x.shape[2:], margins, strict=True)],
        )
    else:
        x = pad_axes(x, margins)
        added, sizes = [0] * len(kernel), list(x.shape[2:])
    if any(0 < need - size < 2 * stride for size, need, stride in zip(sizes, reach, strides, strict=True)):
        return _nothing(x, weight.shape[0], sizes, reach, strides)
    return _CONVOLVE[len(kernel)](x, weight, bias, strides, added, dilations, groups)


def _convolve_row(
    x: Tensor, weight: Tensor, bias: Tensor | None, strides: Sequence[int], padding: Padding, dilations: Sequence[int], groups: int
) -> Tensor:  # fmt: skip
    """A sequence as an image of one row: torch has no channels-last format for sequences, and would copy them."""
    padding = padding if isinstance(padding, str) else ((0, 0), *padding)
    y = convolve(x.unsqueeze(2), weight.unsqueeze(2), bias, (1, *strides), padding, (1, *dilations), groups)
    return y.squeeze(2)


@op(infer=_infer_conv)
def conv(
    x: Tensor, weight: Tensor, *, strides: tuple[int, ...], padding: Padding, dilations: tuple[int, ...], channels_last: bool,
    depthwise: bool = False,
) -> Tensor:  # fmt: skip
    """Convolution over 1 to 3 spatial axes: `[batch, *space, in], [*kernel, in / groups, out] -> [batch, *space',
    out]`.

    `depthwise`: each channel has its own kernels, `[*kernel, in, multiplier] -> [..., in * multiplier]`.
    Source: tf.raw_ops.Conv2D, Conv3D, DepthwiseConv2dNative.
    """
    if channels_last:
        x = x.movedim(-1, 1)
    weight = torch_kernel(weight, depthwise)
    y = convolve(x, weight, None, strides, padding, dilations, x.shape[1] // weight.shape[1])
    return y.movedim(1, -1) if channels_last else y


def torch_kernel(weight: Tensor, depthwise: bool = False) -> Tensor:
    """A kernel in PyTorch's layout: `[*kernel, in / groups, out] -> [out, in / groups, *kernel]`; depthwise kernels
    have one input channel."""
    if depthwise:
        return weight.movedim((-2, -1), (0, 1)).reshape(-1, 1, *weight.shape[:-2])
    return weight.movedim((-1, -2), (0, 1))


def _infer_transposed(x: Spec, weight: Spec, *sizes: Any, channels_last: bool, **attrs: Any) -> list[Spec]:
    return [(x[0], None if weight[1] is None else (None,) * len(weight[1]))]


@op(infer=_infer_transposed)
def conv_transpose(
    x: Tensor, weight: Tensor, *sizes: int, strides: tuple[int, ...], padding: Padding, dilations: tuple[int, ...],
    channels_last: bool,
) -> Tensor:  # fmt: skip
    """Transposed convolution: `[batch, *space, out], [*kernel, in, out] -> [batch, *sizes, in]`, `sizes` the result's
    space.

    This is the gradient of `conv`: SAME crops the padding that the convolution would have added.
    Source: tf.raw_ops.Conv2DBackpropInput, Conv3DBackpropInputV2.
    """
    if channels_last:
        x = x.movedim(-1, 1)
    y = convolve_back(x, torch_kernel(weight), None, sizes, strides, padding, dilations)
    return y.movedim(1, -1) if channels_last else y


def convolve_back(
    x: Tensor, weight: Tensor, bias: Tensor | None, sizes: Sequence[int], strides: Sequence[int], padding: Padding, dilations: Sequence[int]
) -> Tensor:  # fmt: skip
    """The transposed convolution in PyTorch's layouts: `[batch, out, *space], [out, in, *kernel] -> [batch, in,
    *sizes]`."""
    reach = [window_reach(k, d) for k, d in zip(weight.shape[2:], dilations, strict=True)]
    y = _TRANSPOSE[len(sizes)](x, weight, None, strides, 0, 0, 1, dilations)
    margins = window_margins(sizes, reach, strides, padding)
    ends = [size - full + before for (before, _), size, full in zip(margins, sizes, y.shape[2:], strict=True)]
    y = pad_axes(y, [(-before, end) for (before, _), end in zip(margins, ends, strict=True)])
    return (
        y if bias is None else y + bias.reshape(-1, *[1] * len(sizes))
    )  # positions that no kernel reaches get the bias too


def _infer_pool(x: Spec, *, size: Any, strides: Any, padding: Any, channels_last: bool) -> list[Spec]:
    channels = None if x[1] is None else x[1][-1] if channels_last else x[1][1]
    return _spec(x, size, strides, padding, channels, channels_last)


@op(infer=_infer_pool)
def max_pool(
    x: Tensor, *, size: tuple[int, ...], strides: tuple[int, ...], padding: Padding, channels_last: bool
) -> Tensor:
    """The maximum of each window: `[batch, *space, dim] -> [batch, *space', dim]`; padding and NaN are ignored.

    Without any number in the window it is the lowest finite one. Source: tf.raw_ops.MaxPool, MaxPool3D.
    """
    rank = len(size)
    if rank == 1:
        return _as_images(max_pool, x, size, strides, padding, channels_last)
    if channels_last:
        x = x.movedim(-1, 1)
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    x = pad_axes(x, window_margins(x.shape[2:], size, strides, padding), lowest)
    if x.is_floating_point():
        y = _largest_numbers(x, lambda x: _MAX_POOL[rank](x, size, strides))
    else:  # PyTorch does not pool integers
        y = x
        for axis in range(rank):
            y = y.unfold(axis + 2, size[axis], strides[axis])
        y = y.amax(tuple(range(-rank, 0)))
    return y.movedim(1, -1) if channels_last else y


def _largest_numbers(x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """`pool(x)` with TensorFlow's semantics: the maximum starts at the lowest finite number, and NaN compares false."""
    # For bfloat16, oneDNN starts at the lowest float32, which rounds to -inf.
    lowest = -torch.inf if x.dtype == torch.bfloat16 else torch.finfo(x.dtype).min
    y = pool(x)
    if y.is_cpu and readable(y) and (not y.numel() or bool(y.amin() >= lowest)):
        return y
    return pool(torch.where(torch.isnan(x), lowest, x)).clamp(min=lowest)


def _as_images(pool: Any, x: Tensor, size: tuple[int, ...], strides: tuple[int, ...], padding: Padding, channels_last: bool) -> Tensor:  # fmt: skip
    """`pool` of sequences, as images of height one: torch's pools of sequences have no divisor, and others' NaN."""
    axis = 1 if channels_last else 2
    margins: Padding = padding if isinstance(padding, str) else ((0, 0), *padding)
    y = pool(x.unsqueeze(axis), size=(1, *size), strides=(1, *strides), padding=margins, channels_last=channels_last)
    return y.squeeze(axis)


@op(infer=_infer_pool)
def avg_pool(
    x: Tensor, *, size: tuple[int, ...], strides: tuple[int, ...], padding: Padding, channels_last: bool
) -> Tensor:
    """The mean of each window: `[batch, *space, dim] -> [batch, *space', dim]`; padding does not count.

    Source: tf.raw_ops.AvgPool, AvgPool3D.
    """
    if len(size) == 1:
        return _as_images(avg_pool, x, size, strides, padding, channels_last)
    pool = _AVG_POOL[len(size)]
    if channels_last:
        x = x.movedim(-1, 1)
    if padding == "VALID":
        y = pool(x, size, strides)
        return y.movedim(1, -1) if channels_last else y
    margins = window_margins(x.shape[2:], size, strides, padding)
    y = pool(pad_axes(x, margins), size, strides, divisor_override=1)
    counts = pool(pad_axes(torch.ones_like(x[:1, :1]), margins), size, strides, divisor_override=1)
    y = y / counts
    return y.movedim(1, -1) if channels_last else y


# -- space, depth and batch ---------------------------------------------------------------------------------------------


@op()
def depth_to_space(x: Tensor, *, block: int, channels_last: bool) -> Tensor:
    """Rearranges channels into blocks of pixels: `[batch, h, w, block * block * dim] -> [batch, h * block, w * block,
    dim]`.

    Source: tf.raw_ops.DepthToSpace.
    """
    if not channels_last:
        x = x.movedim(1, -1)
    batch, height, width, depth = x.shape
    y = x.reshape(batch, height, width, block, block, depth // (block * block)).permute(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, height * block, width * block, depth // (block * block))
    return y if channels_last else y.movedim(-1, 1)


@op()
def space_to_depth(x: Tensor, *, block: int, channels_last: bool) -> Tensor:
    """Rearranges blocks of pixels into channels: `[batch, h, w, dim] -> [batch, h / block, w / block, block * block *
    dim]`.

    Source: tf.raw_ops.SpaceToDepth.
    """
    if not channels_last:
        x = x.movedim(1, -1)
    batch, height, width, depth = x.shape
    y = x.reshape(batch, height // block, block, width // block, block, depth).permute(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, height // block, width // block, block * block * depth)
    return y if channels_last else y.movedim(-1, 1)


def _infer_blocks(x: Spec, *sizes: Any, block: tuple[int, ...]) -> list[Spec]:
    return [(x[0], None if x[1] is None else (*[None] * (len(block) + 1), *x[1][len(block) + 1 :]))]


@op(infer=_infer_blocks)
def space_to_batch(x: Tensor, *paddings: int, block: tuple[int, ...]) -> Tensor:
    """Every block-th pixel as its own image: `[batch, *space, ...] -> [batch * blocks, *space / block, ...]`.

    `paddings` are before and after for each spatial axis in turn. Source: tf.raw_ops.SpaceToBatchND.
    """
    rank = len(block)
    pairs = [(int(paddings[2 * i]), int(paddings[2 * i + 1])) for i in range(rank)]
    x = pad_axes(x, [*pairs, *[(0, 0)] * (x.ndim - rank - 1)])
    batch, space, rest = x.shape[0], x.shape[1 : rank + 1], x.shape[rank + 1 :]
    split = [part for size, b in zip(space, block, strict=True) for part in (size // b, b)]
    y = x.reshape(batch, *split, *rest)
    inner, outer = [2 * i + 2 for i in range(rank)], [2 * i + 1 for i in range(rank)]
    y = y.permute(*inner, 0, *outer, *range(2 * rank + 1, y.ndim))
    return y.reshape(-1 if batch else 0, *[size // b for size, b in zip(space, block, strict=True)], *rest)


@op(infer=_infer_blocks)
def batch_to_space(x: Tensor, *crops: int, block: tuple[int, ...]) -> Tensor:
    """The inverse of `space_to_batch`: `[batch * blocks, *space, ...] -> [batch, *space * block - crops, ...]`.

    Source: tf.raw_ops.BatchToSpaceND.
    """
    rank = len(block)
    blocks = 1
    for b in block:
        blocks *= b
    batch, space, rest = x.shape[0] // blocks, x.shape[1 : rank + 1], x.shape[rank + 1 :]
    y = x.reshape(*block, batch, *space, *rest)
    order = [rank, *[axis for i in range(rank) for axis in (rank + 1 + i, i)], *range(2 * rank + 1, y.ndim)]
    y = y.permute(*order).reshape(batch, *[size * b for size, b in zip(space, block, strict=True)], *rest)
    for axis in range(rank):
        start, stop = int(crops[2 * axis]), y.shape[axis + 1] - int(crops[2 * axis + 1])
        y = y.narrow(axis + 1, start, stop - start)
    return y
