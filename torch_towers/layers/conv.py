"""Convolutions: torch's modules with channels last and TensorFlow's padding.

Kernels are in torch's layout. Channels last costs no copy: the transpose is torch's `channels_last` memory format.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.kernels.fast_path import plain, readable, untouched
from torch_towers.layers.norms import BatchNorm
from torch_towers.ops.conv import Padding, checked_padding, convolve, convolve_back


class _Margins(nn.Module):
    """What all of these have: margins as TensorFlow counts them, and the axis of the channels.

    Each class below writes out its own signature, although they differ in little: a signature with its types and defaults is the schema
    that a checkpoint is checked against.
    """

    def _lay_out(self, padding: Padding, channels_last: bool) -> None:
        self.margins, self.channels_last = checked_padding(padding), channels_last

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        if self.margins != "VALID":
            shown += f", padding={self.margins!r}"
        return shown if self.channels_last else f"{shown}, channels_last=False"


def _forward(layer: Any, input: Tensor) -> Tensor:
    x = input.movedim(-1, 1) if layer.channels_last else input
    y = convolve(x, layer.weight, layer.bias, layer.stride, layer.margins, layer.dilation, layer.groups)
    return y.movedim(1, -1) if layer.channels_last else y


def _backward(layer: Any, input: Tensor, sizes: tuple[int, ...]) -> Tensor:
    x = input.movedim(-1, 1) if layer.channels_last else input
    y = convolve_back(x, layer.weight, layer.bias, sizes, layer.stride, layer.margins, layer.dilation)
    return y.movedim(1, -1) if layer.channels_last else y


@module()
class Conv1d(_Margins, nn.Conv1d):
    """`nn.Conv1d` over sequences: `[batch, length, in] -> [batch, length', out]`.

    `padding` is "SAME", "VALID", or (before, after) per spatial axis. Source: Keras Conv1D, DepthwiseConv1D.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...] = (1,),
        padding: Padding = "VALID", dilation: tuple[int, ...] = (1,), groups: int = 1, bias: bool = True,
        channels_last: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)  # type: ignore[reportArgumentType]
        self._lay_out(padding, channels_last)

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


@module()
class Conv2d(_Margins, nn.Conv2d):
    """`nn.Conv2d` over images: `[batch, height, width, in] -> [batch, height', width', out]`.

    Depthwise convolutions have one group per channel. `padding` as in `Conv1d`. Source: Keras Conv2D, DepthwiseConv2D,
    SeparableConv2D.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...] = (1, 1),
        padding: Padding = "VALID", dilation: tuple[int, ...] = (1, 1), groups: int = 1, bias: bool = True,
        channels_last: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)  # type: ignore[reportArgumentType]
        self._lay_out(padding, channels_last)

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


@module()
class Conv3d(_Margins, nn.Conv3d):
    """`nn.Conv3d` over volumes: `[batch, *space, in] -> [batch, *space', out]`. `padding` as in `Conv1d`. Source: Keras
    Conv3D."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1),
        padding: Padding = "VALID", dilation: tuple[int, ...] = (1, 1, 1), groups: int = 1, bias: bool = True,
        channels_last: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)  # type: ignore[reportArgumentType]
        self._lay_out(padding, channels_last)

    def forward(self, input: Tensor) -> Tensor:
        return _forward(self, input)


@module()
class ConvTranspose1d(_Margins, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` to a given length: `[batch, length, in], length' -> [batch, length', out]`. Source: Keras
    Conv1DTranspose."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...] = (1,),
        padding: Padding = "VALID", dilation: tuple[int, ...] = (1,), bias: bool = True, channels_last: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, 0, 1, bias, dilation)  # type: ignore[reportArgumentType]
        self._lay_out(padding, channels_last)

    def forward(self, input: Tensor, *sizes: int) -> Tensor:  # type: ignore[reportIncompatibleMethodOverride]
        return _backward(self, input, sizes)


@module()
class ConvTranspose2d(_Margins, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` to given sizes: `[batch, h, w, in], h', w' -> [batch, h', w', out]`. Source: Keras
    Conv2DTranspose."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...] = (1, 1),
        padding: Padding = "VALID", dilation: tuple[int, ...] = (1, 1), bias: bool = True, channels_last: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, 0, 1, bias, dilation)  # type: ignore[reportArgumentType]
        self._lay_out(padding, channels_last)

    def forward(self, input: Tensor, *sizes: int) -> Tensor:  # type: ignore[reportIncompatibleMethodOverride]
        return _backward(self, input, sizes)


@module()
class ConvTranspose3d(_Margins, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` to given sizes: `[batch, *space, in], *sizes -> [batch, *sizes, out]`. Source: Keras
    Conv3DTranspose."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1),
        padding: Padding = "VALID", dilation: tuple[int, ...] = (1, 1, 1), bias: bool = True, channels_last: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, 0, 1, bias, dilation)  # type: ignore[reportArgumentType]
        self._lay_out(padding, channels_last)

    def forward(self, input: Tensor, *sizes: int) -> Tensor:  # type: ignore[reportIncompatibleMethodOverride]
        return _backward(self, input, sizes)


MANY = 1 << 16
"""Elements of an image or batch above which the fused step pays off: below, checking whether it applies costs more."""

_FLOATS = (torch.float32, torch.float64)  # narrower dtypes round between the steps


def convolved(layer: Any, norm: Any, x: Tensor, activation: str, no_nan: bool) -> Any:
    """`activation(norm(layer(x)))` in the memory of `layer(x)`; `NotImplemented` if the difference could be observed.

    `norm` may be None, `activation` "relu", "relu6" or empty. A normalization is folded into the kernel if the kernel
    is smaller than the result, anew at each call: kernels may change, and this keeps no copy.
    """
    if not readable() or x.numel() < MANY:  # a captured graph must not compare its sizes
        return NotImplemented
    kind = layer.__class__
    if kind not in (Conv1d, Conv2d, Conv3d) or not untouched(layer, kind) or not layer.channels_last:
        return NotImplemented
    if norm is not None and not untouched(norm, BatchNorm):
        return NotImplemented
    held = [x, layer.weight, layer.bias]
    if norm is not None:
        held += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    held = [each for each in held if each is not None]
    if x.dtype not in _FLOATS or any(each.dtype != x.dtype for each in held) or not plain(*held):
        return NotImplemented
    weight, bias, line = layer.weight, layer.bias, None if norm is None else norm.line()
    if line is not None and x.numel() > weight.numel() * math.prod(
        layer.stride
    ):  # roughly: positions > elements of one filter
        factor, shift = line
        weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        bias, line = shift if bias is None else torch.addcmul(shift, bias, factor), None
    x = x.movedim(-1, 1)
    y = convolve(x, weight, bias, layer.stride, layer.margins, layer.dilation, layer.groups).movedim(1, -1)
    if line is not None:
        y.mul_(line[0]).add_(line[1])
    if activation and no_nan:
        y = torch.nan_to_num_(y, 0.0, math.inf, -math.inf)
    if activation:
        y = y.relu_()
    return y.clamp_(max=6.0) if activation == "relu6" else y
