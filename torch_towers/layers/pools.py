"""Pools: torch's modules with channels last and TensorFlow's padding, and averages and maxima of whole images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.ops.conv import Padding, avg_pool, checked_padding, max_pool
from torch_towers.ops.reductions import reduce_max

Sizes = tuple[int, ...]


class _Windows(nn.Module):
    """What all pools of windows have: sizes, margins as TensorFlow counts them, and the axis of the channels.

    Its signature is that of each class below, and so the schema that a checkpoint is checked against.
    """

    pool: Any
    """The op that the layer calls."""

    def __init__(
        self, kernel_size: Sizes, stride: Sizes, padding: Padding = "VALID", channels_last: bool = True
    ) -> None:
        super().__init__(kernel_size, stride)
        self.margins, self.channels_last = checked_padding(padding), channels_last

    def forward(self, input: Tensor) -> Tensor:
        sizes: dict[str, Any] = {"size": self.kernel_size, "strides": self.stride}
        return self.pool(input, **sizes, padding=self.margins, channels_last=self.channels_last)

    def extra_repr(self) -> str:
        shown = f"kernel_size={self.kernel_size}, stride={self.stride}"
        if self.margins != "VALID":
            shown += f", padding={self.margins!r}"
        return shown if self.channels_last else f"{shown}, channels_last=False"


@module()
class MaxPool1d(_Windows, nn.MaxPool1d):
    """`nn.MaxPool1d` over sequences: `[batch, length, dim] -> [batch, length', dim]`.

    `padding` is "SAME", "VALID", or (before, after) per axis; padding and NaN are ignored, as in TensorFlow.
    Source: Keras MaxPooling1D.
    """

    pool = staticmethod(max_pool)


@module()
class MaxPool2d(_Windows, nn.MaxPool2d):
    """`nn.MaxPool2d` over images: `[batch, height, width, dim] -> [batch, height', width', dim]`. As `MaxPool1d`.

    Source: Keras MaxPooling2D.
    """

    pool = staticmethod(max_pool)


@module()
class MaxPool3d(_Windows, nn.MaxPool3d):
    """`nn.MaxPool3d` over volumes: `[batch, *space, dim] -> [batch, *space', dim]`. As `MaxPool1d`.

    Source: Keras MaxPooling3D.
    """

    pool = staticmethod(max_pool)


@module()
class AvgPool1d(_Windows, nn.AvgPool1d):
    """`nn.AvgPool1d` over sequences: `[batch, length, dim] -> [batch, length', dim]`.

    `padding` as in `MaxPool1d`; padding does not count, as in TensorFlow. Source: Keras AveragePooling1D.
    """

    pool = staticmethod(avg_pool)


@module()
class AvgPool2d(_Windows, nn.AvgPool2d):
    """`nn.AvgPool2d` over images: `[batch, height, width, dim] -> [batch, height', width', dim]`. As `AvgPool1d`.

    Source: Keras AveragePooling2D.
    """

    pool = staticmethod(avg_pool)


@module()
class AvgPool3d(_Windows, nn.AvgPool3d):
    """`nn.AvgPool3d` over volumes: `[batch, *space, dim] -> [batch, *space', dim]`. As `AvgPool1d`.

    Source: Keras AveragePooling3D.
    """

    pool = staticmethod(avg_pool)


@module()
class GlobalAveragePooling(nn.Module):
    """The average over whole sequences, images or volumes: `[batch, *space, dim] -> [batch, dim]`.

    `axes` are those of the space; `keepdim` leaves them with length one. Source: Keras GlobalAveragePooling1D, 2D, 3D.
    """

    def __init__(self, axes: tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.axes, self.keepdim = axes, keepdim

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(x, self.axes, self.keepdim)

    def extra_repr(self) -> str:
        return f"axes={self.axes}" + (", keepdim=True" if self.keepdim else "")


@module()
class GlobalMaxPooling(nn.Module):
    """The maximum over whole sequences, images or volumes: `[batch, *space, dim] -> [batch, dim]`.

    `axes` and `keepdim` as in `GlobalAveragePooling`; nothing gives -inf. Source: Keras GlobalMaxPooling1D, 2D, 3D.
    """

    def __init__(self, axes: tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.axes, self.keepdim = axes, keepdim

    def forward(self, x: Tensor) -> Tensor:
        return reduce_max(x, axes=self.axes, keepdim=self.keepdim)

    def extra_repr(self) -> str:
        return f"axes={self.axes}" + (", keepdim=True" if self.keepdim else "")


@module()
class MaskedAverage(nn.Module):
    """The average of the rows under a mask, or by weights: `[n, length, dim], [n, length] -> [n, dim]`.

    No row under the mask gives NaN, or zeros if `zero_if_empty`; the divisor is at least `floor`. If not `finite`, rows
    beside the mask may be infinite or NaN. Source: Keras GlobalAveragePooling1D with a mask, mean pooling of encoders.
    """

    def __init__(self, floor: float = 0.0, zero_if_empty: bool = False, finite: bool = True) -> None:
        super().__init__()
        self.floor, self.zero_if_empty, self.finite = floor, zero_if_empty, finite

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if not self.finite:
            return self.divided(torch.where(mask.unsqueeze(-1), x, 0.0).sum(1), mask)
        return self.divided(torch.bmm(mask.to(x.dtype).unsqueeze(1), x).squeeze(1), mask)

    def divided(self, total: Tensor, mask: Tensor) -> Tensor:
        """A sum of rows, divided by the number of rows or the sum of their weights: `[n, dim], [n, length] -> [n,
        dim]`."""
        count = torch.sum(mask, 1, keepdim=True, dtype=total.dtype)
        if self.floor:
            count = count.clamp(min=self.floor)
        return torch.where(count == 0, 0.0, total / count) if self.zero_if_empty else total / count

    def extra_repr(self) -> str:
        parts = [f"floor={self.floor:g}"] if self.floor else []
        parts += ["zero_if_empty=True"] if self.zero_if_empty else []
        return ", ".join(parts + ([] if self.finite else ["finite=False"]))
