"""Fake quantization, as quantization-aware training leaves it in a graph."""

from __future__ import annotations

from typing import Any

import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Constant
from porting.errors import PortingError
from torch_towers.errors import InputError
from torch_towers.graph.dtypes import torch_dtype

Emit = ConvertingEmitter


def _check_bits(num_bits: int, least: int, most: int) -> None:
    if not least <= num_bits <= most:
        raise InputError(f"num_bits must be between {least} and {most}, inclusive, and is {num_bits}")


def _steps(num_bits: int, narrow_range: bool) -> tuple[int, int]:
    _check_bits(num_bits, 2, 16)
    return int(narrow_range), (1 << num_bits) - 1


@converter("FakeQuantWithMinMaxArgs")
def fake_quant_args(
    t: Emit, x: Any, *, min: float = -6.0, max: float = 6.0, num_bits: int = 8, narrow_range: bool = False
) -> Any:
    """The bounds are float32, whatever the precision of a run."""
    low, high = (Constant(torch.tensor(bound, dtype=torch.float32)) for bound in (min, max))
    return t.fake_quant(x, low, high, steps=_steps(num_bits, narrow_range), by_inverse=True)


@converter("FakeQuantWithMinMaxVars")
def fake_quant_vars(t: Emit, x: Any, low: Any, high: Any, *, num_bits: int = 8, narrow_range: bool = False) -> Any:
    return t.fake_quant(x, low, high, steps=_steps(num_bits, narrow_range), by_inverse=False)


@converter("FakeQuantWithMinMaxVarsPerChannel")
def fake_quant_channels(t: Emit, x: Any, low: Any, high: Any, *, num_bits: int = 8, narrow_range: bool = False) -> Any:
    return t.fake_quant(x, low, high, steps=_steps(num_bits, narrow_range), by_inverse=True)


def _quantize(
    t: Emit,
    x: Any,
    low: Any,
    high: Any,
    num_bits: int,
    signed: bool,
    given: bool,
    narrow: bool,
    axis: int,
    round_mode: str,
) -> Any:
    """Without a given range, that of the operand is used."""
    _check_bits(num_bits, 1 + signed, 61 if signed else 62)
    first = -(1 << (num_bits - 1)) + int(narrow) if signed else 0
    last = (1 << (num_bits - 1)) - 1 if signed else (1 << num_bits) - 1
    if not given:
        if x.shape is None:
            raise PortingError(f"{t.scope!r}: the rank of its operand is known only at run time")
        axes = tuple(i for i in range(len(x.shape)) if axis == -1 or i != axis)
        low, high = t.reduce_min(x, axes=axes, keepdim=False), t.reduce_max(x, axes=axes, keepdim=False)
    return t.quantize_dequantize(
        x, t.tensor(low), t.tensor(high), quanta=(first, last), half_up=round_mode == "HALF_UP", clamps=given, axis=axis
    )


@converter("QuantizeAndDequantize")
def quantize_and_dequantize(t: Emit, x: Any, *, signed_input: bool = True, num_bits: int = 8, range_given: bool = False,
                            input_min: float = 0.0, input_max: float = 0.0) -> Any:  # fmt: skip
    low, high = (Constant(torch.tensor(bound, dtype=torch_dtype(x.dtype))) for bound in (input_min, input_max))
    return _quantize(t, x, low, high, num_bits, signed_input, range_given, False, -1, "HALF_TO_EVEN")


@converter("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV4")
def quantize_and_dequantize_v2(t: Emit, x: Any, low: Any, high: Any, *, signed_input: bool = True, num_bits: int = 8,
                               range_given: bool = False, round_mode: str = "HALF_TO_EVEN", narrow_range: bool = False,
                               axis: int = -1) -> Any:  # fmt: skip
    return _quantize(t, x, low, high, num_bits, signed_input, range_given, narrow_range, axis, round_mode)


@converter("QuantizeAndDequantizeV3", refuses="a number of bits that the graph computes")
def quantize_and_dequantize_v3(t: Emit, x: Any, low: Any, high: Any, num_bits: int, *, signed_input: bool = True,
                               range_given: bool = True, narrow_range: bool = False, axis: int = -1) -> Any:  # fmt: skip
    return _quantize(t, x, low, high, num_bits, signed_input, range_given, narrow_range, axis, "HALF_TO_EVEN")
