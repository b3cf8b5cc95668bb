"""Numbers rounded to the steps of a quantized model, in the float dtype that they come in."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.graph.registry import Number, op


@op()
def fake_quant(x: Tensor, low: Number, high: Number, *, steps: tuple[int, int], by_inverse: bool) -> Tensor:
    """`x` at the nearest of the steps that cut `[low, high]` up, one of which is moved to 0: `[...] -> [...]`.

    `low` and `high` are numbers, or one for each channel of the last axis; `steps` are the first and the last quantum.
    `by_inverse` multiplies by the inverse of a step where TensorFlow does, and divides where it divides. The gradient is
    TensorFlow's: straight through between the bounds, and to the bound that cut a value off.
    Source: tf.raw_ops.FakeQuantWithMinMaxArgs, FakeQuantWithMinMaxVars, FakeQuantWithMinMaxVarsPerChannel.
    """
    low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in (low, high))
    first, last = float(steps[0]), float(steps[1])
    scale, inverse = (high - low) / (last - first), torch.full_like(low, last - first) / (high - low)
    zero = _half_up(torch.clamp(first - low / scale, first, last))
    bottom, top = (first - zero) * scale, (last - zero) * scale
    shifted = _clamped(x, bottom, top) - bottom
    quanta = (shifted * inverse if by_inverse else shifted / scale) - torch.floor(-bottom * inverse + 0.5) + 0.5
    rounded = (torch.floor(quanta) * scale).detach()
    through = torch.where(x < bottom, low, torch.where(x > top, high, x))
    return rounded + (through - through.detach()) if torch.is_grad_enabled() else rounded


def _clamped(x: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
    """`x` between two bounds; NaN and -0.0 stay, of which torch's minimum and maximum make others."""
    low = torch.where(x > top, top, x)
    return torch.where(low < bottom, bottom, low)


def _half_up(x: Tensor) -> Tensor:
    """The nearest whole number, halves away from zero, for numbers that are not negative."""
    whole = torch.floor(x)
    return whole + (x - whole >= 0.5).to(x.dtype)


@op()
def quantize_dequantize(
    x: Tensor, low: Tensor, high: Tensor, *, quanta: tuple[int, int], half_up: bool, clamps: bool, axis: int
) -> Tensor:
    """`x` in whole steps, as many as fit between the first and the last of `quanta`, 0 staying 0: `[...] -> [...]`.

    `low` and `high` say what range is to fit, for all of `x` or for each index of `axis`; `clamps` cuts off what is outside.
    Halves go up, or to the even step. The gradient goes straight through. Source: tf.raw_ops.QuantizeAndDequantizeV2, V3, V4.
    """
    first, last = quanta
    if low.ndim:
        shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
        low, high = low.reshape(shape), high.reshape(shape)
    largest = torch.finfo(x.dtype).max
    by_low = torch.where(first * low > 0, torch.full_like(low, first) / low, largest)
    by_high = torch.where(last * high > 0, torch.full_like(high, last) / high, largest)
    low_decides = by_low < by_high
    scale = torch.where(low_decides, by_low, by_high)
    inverse = torch.where(low_decides, low / first if first else low, high / last)
    if clamps:
        top, bottom = torch.where(low_decides, last * inverse, high), torch.where(low_decides, low, first * inverse)
        x = _clamped(x, bottom, top)
    steps = x * scale
    rounded = ((torch.floor(steps + 0.5) if half_up else torch.round(steps)) * inverse).detach()
    return rounded + (x - x.detach()) if torch.is_grad_enabled() else rounded
