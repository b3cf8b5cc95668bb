"""The fast product of many rows is `nn.Linear`'s within the rounding of its sums, and only where no gradient is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_towers.layers import linear
from torch_towers.layers.linear import Linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 127, 128, 1000])
def test_equals_the_slow_way(rows: int, bias: bool) -> None:
    layer = Linear(37, 19, bias=bias)
    x = torch.randn(rows, 37, generator=torch.Generator().manual_seed(rows))
    with torch.inference_mode():
        found, slow = layer(x), nn.functional.linear(x, layer.weight, layer.bias)
        exact = nn.functional.linear(
            x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double()
        )
    assert found.dtype == slow.dtype and found.shape == slow.shape
    if rows:
        error, theirs = (found - exact).pow(2).mean().sqrt(), (slow - exact).pow(2).mean().sqrt()
        assert error <= 1.25 * theirs + 1e-8


def test_not_finite_values_stay() -> None:
    layer = Linear(8, 4)
    x = torch.zeros(256, 8)
    x[0, 0], x[1, 1] = float("nan"), float("inf")
    with torch.no_grad():
        found, slow = layer(x), nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(found.isnan(), slow.isnan()) and torch.equal(found.isinf(), slow.isinf())


def test_gradients_and_other_ranks_and_dtypes_take_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_ONEDNN", None)
    assert not Linear(8, 4)._takes(torch.zeros(256, 8))
    monkeypatch.setattr(linear, "_ONEDNN", object())  # calling it would fail
    layer = Linear(8, 4)
    layer(torch.zeros(256, 8)).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert layer(torch.zeros(2, 200, 8)).shape == (2, 200, 4)
        assert layer.double()(torch.zeros(256, 8).double()).dtype == torch.float64
