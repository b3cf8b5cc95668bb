"""Sliding windows over images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import op
from torch_towers.ops.conv import Padding, pad_axes, window_margins, window_reach


@op()
def extract_patches(
    x: Tensor, *, size: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], padding: Padding
) -> Tensor:
    """Every window of `size`, flattened into channels: `[batch, *space, channels] -> [batch, *windows, size *
    channels]`.

    `dilations` are the steps within a window. SAME pads with zeros. Source: tf.raw_ops.ExtractImagePatches,
    ExtractVolumePatches.
    """
    windows = _windows(x, size, strides, dilations, padding, 0)
    rank = len(size)
    return windows.reshape(*windows.shape[: rank + 1], math.prod(windows.shape[rank + 1 :]))


def _windows(
    x: Tensor, size: Sequence[int], strides: Sequence[int], dilations: Sequence[int], padding: Padding, value: float
) -> Tensor:
    """Every window: `[batch, *space, channels] -> [batch, *windows, *size, channels]`, padded with `value`."""
    reach = [window_reach(k, d) for k, d in zip(size, dilations, strict=True)]
    x = pad_axes(x, [(0, 0), *window_margins(x.shape[1:-1], reach, strides, padding), (0, 0)], value)
    for axis, (need, stride, dilation) in enumerate(zip(reach, strides, dilations, strict=True), start=1):
        x = x.unfold(axis, need, stride)[..., ::dilation]
    rank = len(size)
    return x.permute([*range(rank + 1), *range(rank + 2, 2 * rank + 2), rank + 1])


@op()
def morphological_dilation(
    x: Tensor, weight: Tensor, *, strides: tuple[int, ...], dilations: tuple[int, ...], padding: Padding
) -> Tensor:
    """The maximum over a window plus weights: `[batch, *space, c], [*size, c] -> [batch, *windows, c]`.

    Source: tf.raw_ops.Dilation2D.
    """
    rank = len(strides)
    lowest = torch.finfo(x.dtype).min if x.is_floating_point() else torch.iinfo(x.dtype).min
    outside = _windows(torch.zeros_like(x[:1]), weight.shape[:-1], strides, dilations, padding, 1) != 0
    sums = _windows(x, weight.shape[:-1], strides, dilations, padding, 0) + weight
    return torch.where(outside, lowest, sums).amax(tuple(range(rank + 1, 2 * rank + 1)))


@op()
def max_pool_argmax(
    x: Tensor, *, size: tuple[int, ...], strides: tuple[int, ...], padding: Padding, dtype: Dtype, batch_counts: bool
) -> tuple[Tensor, Tensor]:
    """The maximum of every window, and its position: `[batch, height, width, c] -> 2 x [batch, *windows, c]`.

    Positions are flat indices into an image, or, with `batch_counts`, into the whole batch; ties go to the first.
    Source: tf.raw_ops.MaxPoolWithArgmax.
    """
    ones = (1,) * len(size)
    places = torch.arange(x[:1].numel(), device=x.device).reshape(x[:1].shape)
    index = _windows(places, size, strides, ones, padding, -1).flatten(-3, -2)
    windows = _windows(x, size, strides, ones, padding, 0).flatten(-3, -2)
    lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    best, at = torch.where(index >= 0, windows, lowest).max(-2)
    found = index.expand(windows.shape).gather(-2, at.unsqueeze(-2)).squeeze(-2)
    if batch_counts:
        found = found + torch.arange(x.shape[0], device=x.device).reshape(-1, 1, 1, 1) * places.numel()
    return best, found.to(torch_dtype(dtype))
