"""Fake quantization: rounds floats to the steps of a quantized model, in their own dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.graph.registry import Number, op


@op()
def fake_quant(x: Tensor, low: Number, high: Number, *, steps: tuple[int, int], by_inverse: bool) -> Tensor:
    """`x` rounded to the nearest quantization step in `[low, high]`, shifted so that 0 is a step: `[...] -> [...]`.

    `low` and `high` are scalars, or one per channel of the last axis; `steps` are the first and last quantum.
    `by_inverse` multiplies by the inverse of the scale where TensorFlow does, instead of dividing. The gradient is
    TensorFlow's: straight-through between the bounds, and to the bound that clamps a value.
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
    """Clamps `x`; keeps NaN and -0.0, which torch's minimum and maximum change."""
    low = torch.where(x > top, top, x)
    return torch.where(low < bottom, bottom, low)


def _half_up(x: Tensor) -> Tensor:
    """Rounds nonnegative numbers, halves up."""
    whole = torch.floor(x)
    return whole + (x - whole >= 0.5).to(x.dtype)


@op()
def quantize_dequantize(
    x: Tensor, low: Tensor, high: Tensor, *, quanta: tuple[int, int], half_up: bool, clamps: bool, axis: int
) -> Tensor:
    """`x` rounded to multiples of a scale that fits the range into `quanta`, keeping 0: `[...] -> [...]`.

    `low` and `high` are the range to fit, for all of `x` or for each index of `axis`; `clamps` clamps values outside.
    Halves round up, or to even. The gradient is straight-through. Source: tf.raw_ops.QuantizeAndDequantizeV2, V3, V4.
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
