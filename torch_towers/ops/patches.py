"""Patches: windows of images and volumes laid out along the channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torch_towers.ops.conv import Padding, pad_axes, window_margins, window_reach
from torch_towers.registry import op


@op()
def extract_patches(
    x: Tensor, *, size: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], padding: Padding
) -> Tensor:
    """Every window of `size`, flat: `[batch, *space, channels] -> [batch, *windows, size * channels]`.

    `dilations` are the steps within a window. SAME fills up with zeros. Source: tf.raw_ops.ExtractImagePatches, ExtractVolumePatches.
    """
    reach = [window_reach(k, d) for k, d in zip(size, dilations, strict=True)]
    around = [(0, 0), *window_margins(x.shape[1:-1], reach, strides, padding), (0, 0)]
    x = pad_axes(x, around)
    for axis, (need, stride, dilation) in enumerate(zip(reach, strides, dilations, strict=True), start=1):
        x = x.unfold(axis, need, stride)[..., ::dilation]
    rank = len(size)
    order = [*range(rank + 1), *range(rank + 2, 2 * rank + 2), rank + 1]
    windows = x.permute(order)
    return windows.reshape(*windows.shape[: rank + 1], _product(windows.shape[rank + 1 :]))


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
