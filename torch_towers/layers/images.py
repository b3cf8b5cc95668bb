"""Layers of images without weights: margins of zeros, another scale, more pixels."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.ops.images import resize_bilinear


@module()
class ZeroPadding(nn.Module):
    """Zeros around sequences, images or volumes: `[batch, *space, dim] -> [batch, *space', dim]`.

    `margins` are (before, after) for each axis of the space. Source: Keras ZeroPadding1D, 2D, 3D.
    """

    def __init__(self, margins: tuple[tuple[int, int], ...], channels_last: bool = True) -> None:
        super().__init__()
        self.margins, self.channels_last = margins, channels_last

    def forward(self, x: Tensor) -> Tensor:
        sizes = [size for margin in reversed(self.margins) for size in margin]
        return F.pad(x, [0, 0, *sizes] if self.channels_last else sizes)

    def extra_repr(self) -> str:
        return f"{self.margins}" if self.channels_last else f"{self.margins}, channels_last=False"


@module()
class Rescaling(nn.Module):
    """`x * scale + offset`: `[...] -> [...]`. Source: Keras Rescaling, `x / 127.5 - 1` of tf.keras.applications."""

    def __init__(self, scale: float, offset: float = 0.0) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale
        return x + self.offset if self.offset else x

    def extra_repr(self) -> str:
        return f"scale={self.scale:.6g}" + (f", offset={self.offset:.6g}" if self.offset else "")


@module()
class Upsample(nn.Module):
    """Images, sequences or volumes with more pixels: `[batch, *space, dim] -> [batch, *space * scale_factor, dim]`.

    `mode` "nearest" repeats each pixel, "bilinear" interpolates between the centres of an image's pixels.
    Source: Keras UpSampling1D, 2D, 3D.
    """

    def __init__(self, scale_factor: tuple[int, ...], mode: Literal["nearest", "bilinear"] = "nearest") -> None:
        super().__init__()
        if mode == "bilinear" and len(scale_factor) != 2:
            raise ValueError(f"bilinear interpolation is of images, and {scale_factor} is not of two axes")
        self.scale_factor, self.mode = scale_factor, mode

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "bilinear":
            height, width = (size * times for size, times in zip(x.shape[1:], self.scale_factor, strict=False))
            return resize_bilinear(x, height, width, align_corners=False, half_pixel_centers=True)
        for axis, times in enumerate(self.scale_factor, 1):
            x = x.repeat_interleave(times, axis) if times > 1 else x
        return x

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}, mode={self.mode!r}"
