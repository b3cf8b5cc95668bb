"""BatchNorm, whose sum is made in place, is the formula to the bit; it trains and leaves its input alone."""

from __future__ import annotations

import pytest
import torch

from torch_towers.layers.norms import BatchNorm


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 4, 7)])
def test_is_the_formula(shape: tuple[int, ...], scale: bool, shift: bool) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    layer = BatchNorm(7, 1e-3, scale, shift)
    for value in layer.state_dict().values():
        value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    x = torch.randn(shape, generator=generator)
    given = x.clone()
    found = layer(x)
    assert layer.running_mean is not None and layer.running_var is not None
    factor = torch.rsqrt(layer.running_var + 1e-3) * (layer.weight if scale else 1.0)
    wanted = x * factor + ((layer.bias if shift else 0.0) - layer.running_mean * factor)
    assert torch.equal(found, wanted) and torch.equal(x, given)
    assert torch.autograd.gradcheck(layer.double(), x.double().requires_grad_())
