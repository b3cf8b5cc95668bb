"""Fake quantization and its gradient against TensorFlow, bit-exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.witness import Case, assert_equal, case, check_case, tf
from torch_towers.ops.quantization import fake_quant

RNG = np.random.default_rng(0)
EDGES = np.array([np.inf, -np.inf, 0.0, -0.0, 6.0, -6.0, 5.99, 0.5, 1e-30, -1e30, 2.5, 3.5], np.float32)
VALUES = np.concatenate([EDGES, RNG.uniform(-8, 8, 60).astype(np.float32)]).reshape(6, 3, 4)
RANGES = [(-6.0, 6.0), (0.0, 1.0), (-0.1, 3.7), (-5.0, 0.0), (0.3, 2.0), (-3.0, -1.0)]


def fake_quant_cases() -> list[Case]:
    rows: list[Case] = []
    for low, high in RANGES:
        for bits, narrow in ((8, False), (8, True), (2, False), (4, True), (16, False)):
            attrs = {"num_bits": bits, "narrow_range": narrow}
            if low <= 0 <= high:
                rows.append(case("FakeQuantWithMinMaxArgs", inputs=VALUES, attrs={**attrs, "min": low, "max": high}))
            for constants in (("min", "max"), ()):
                rows.append(case("FakeQuantWithMinMaxVars", *constants, inputs=VALUES, min=np.float32(low), max=np.float32(high),
                                 attrs=attrs, label=f"{low} {high} {bits} {narrow} {len(constants)}"))  # fmt: skip
            channels = np.array([low, low - 1, -1, 0], np.float32), np.array([high, high + 2, 1, 0.5], np.float32)
            for shape in ((6, 3, 4), (18, 4), (3, 3, 2, 4)):
                rows.append(case("FakeQuantWithMinMaxVarsPerChannel", "min", "max", inputs=VALUES.reshape(shape),
                                 min=channels[0], max=channels[1], attrs=attrs, label=f"{low} {high} {bits} {narrow} {shape}"))  # fmt: skip
    rows.append(case("FakeQuantWithMinMaxVarsPerChannel", "min", "max", inputs=VALUES[0, 0], min=np.full(4, -1, np.float32),
                     max=np.full(4, 2, np.float32), batched=False, label="a vector"))  # fmt: skip
    rows.append(case("FakeQuantWithMinMaxVars", inputs=VALUES[:0], min=np.float32(0), max=np.float32(1), label="empty"))
    rows.append(case("FakeQuantWithMinMaxArgs", inputs=np.float32(1.3), label="rank 0"))
    return rows


def quantize_cases() -> list[Case]:
    rows: list[Case] = []
    for dtype in (np.float32, np.float64):
        x = np.where(np.isfinite(VALUES), np.clip(VALUES, -9, 9), 0.25).astype(dtype)
        for low, high in ((-2.0, 3.0), (0.0, 1.0), (-4.0, 0.5)):
            for signed, bits, narrow in ((True, 8, False), (True, 8, True), (False, 8, False), (True, 3, False)):
                bounds = {"input_min": dtype(low), "input_max": dtype(high)}
                attrs = {"signed_input": signed, "narrow_range": narrow}
                for known in (True, False):
                    for mode in ("HALF_TO_EVEN", "HALF_UP"):
                        rows += [case(op, "input_min", "input_max", input=x, **bounds, 
                                      label=f"{x.dtype} {low} {signed} {bits} {narrow} {known} {mode}",
                                      attrs={**attrs, "num_bits": bits, "range_given": known, "round_mode": mode})
                                 for op in ("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV4")]  # fmt: skip
                    rows.append(case("QuantizeAndDequantizeV3", "input_min", "input_max", "num_bits", input=x, **bounds, num_bits=np.int32(bits),
                                     attrs={**attrs, "range_given": known}, label=f"{x.dtype} {low} {signed} {bits} {narrow} {known}"))  # fmt: skip
        channels = {"input_min": np.array([-2, -1, 0], dtype), "input_max": np.array([1, 2, 3], dtype)}
        for op in ("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV4", "QuantizeAndDequantizeV3"):
            more = {"num_bits": np.int32(8)} if op.endswith("3") else {}
            for known in (True, False) if more else (False,):  # a range for each channel is V3's alone
                rows.append(case(op, *more, "input_min", "input_max", input=x, **channels, **more,
                                 attrs={"range_given": known, "axis": 1}, label=f"channels {known}"))  # fmt: skip
    return rows


CASES = fake_quant_cases() + quantize_cases()
COVERED = ("QuantizeAndDequantize",)
"""`QuantizeAndDequantize` left TensorFlow for V2, with which it shares its code."""


@pytest.mark.parametrize("row", CASES, ids=str)
def test_conformance(row: Case) -> None:
    check_case(row)


def test_not_a_number() -> None:
    check_case(case("FakeQuantWithMinMaxArgs", inputs=np.full(9, np.nan, np.float32)))


@settings(max_examples=60, deadline=None)
@given(st.floats(-100, 0, width=32), st.floats(0.015625, 100, width=32), st.integers(2, 8))
def test_every_range(low: float, high: float, bits: int) -> None:
    x = np.linspace(low - 1, high + 1, 333).astype(np.float32)
    steps = (0, (1 << bits) - 1)
    for op, by_inverse in ((tf.raw_ops.FakeQuantWithMinMaxArgs, True), (tf.raw_ops.FakeQuantWithMinMaxVars, False)):
        expected = op(inputs=x, min=low, max=high, num_bits=bits).numpy()
        assert_equal(fake_quant(torch.from_numpy(x), low, high, steps=steps, by_inverse=by_inverse), expected)


def test_gradients() -> None:
    """Straight through between the bounds, 0 outside, where it goes to the bound."""
    x, low, high = VALUES.reshape(-1, 4)[3:], np.array([-1, -2, 0, -6], np.float32), np.array([1, 3, 5, 6], np.float32)
    with tf.GradientTape() as tape:
        operands = [tf.constant(item) for item in (x, low, high)]
        for operand in operands:
            tape.watch(operand)
        y = tf.raw_ops.FakeQuantWithMinMaxVarsPerChannel(inputs=operands[0], min=operands[1], max=operands[2])
    expected = tape.gradient(y, operands)
    ours = [torch.from_numpy(item).requires_grad_() for item in (x, low, high)]
    result = fake_quant(*ours, steps=(0, 255), by_inverse=True)
    assert_equal(result, y.numpy())
    for found, wanted in zip(torch.autograd.grad(result.sum(), ours), expected, strict=True):
        assert_equal(found, wanted.numpy())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_precision_of_the_operand_stays(dtype: Any) -> None:
    x = torch.tensor([0.1, 7.0, -7.0], dtype=dtype)
    assert fake_quant(x, torch.tensor(-6.0), torch.tensor(6.0), steps=(0, 255), by_inverse=True).dtype == dtype
