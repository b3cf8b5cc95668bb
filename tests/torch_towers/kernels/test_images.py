"""Bilinear interpolation in the native core equals torch's, to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torch_towers.kernels.test_native import assert_same, both
from torch_towers.kernels import native
from torch_towers.ops.images import resize_bilinear

pytestmark = pytest.mark.skipif(native.core is None, reason="the native core was not built (no compiler)")
SIZES = st.integers(1, 9)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 3), SIZES, SIZES, st.sampled_from([0, 1, 2, 3, 4]), SIZES, SIZES,
    st.sampled_from([(True, False), (False, True), (False, False)]), st.integers(0, 1 << 30),
)  # fmt: skip
def test_bilinear(
    count: int, height: int, width: int, dim: int, rows: int, columns: int, law: tuple[bool, bool], seed: int
) -> None:
    x = torch.randn(count, height, width, dim, generator=torch.Generator().manual_seed(seed)) * 1e3
    x.reshape(-1)[:1] = torch.inf
    given_as = x.movedim(1, 2).contiguous().movedim(2, 1) if seed % 2 else x
    align, half = law
    assert_same(*both(lambda: resize_bilinear(given_as, rows, columns, align_corners=align, half_pixel_centers=half)))
    integers = x.nan_to_num(0, 9, 0).to(torch.uint8)
    assert_same(*both(lambda: resize_bilinear(integers, rows, columns, align_corners=align, half_pixel_centers=half)))


def test_gradients_are_left_to_torch() -> None:
    x = torch.rand(1, 3, 4, 2, requires_grad=True)
    resize_bilinear(x, 5, 2, align_corners=False, half_pixel_centers=True).sum().backward()
    assert x.grad is not None and float(x.grad.sum()) == pytest.approx(20.0, rel=1e-5)
