"""BatchNorm and GroupNorm, with their in-place sums, are the formula, train, and do not modify their input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_towers.layers.norms import BatchNorm, GroupNorm, ShiftedLayerNorm


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


@pytest.mark.parametrize(("scale", "shift"), [(True, True), (True, False), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("space", [(), (7,), (3, 4), (2, 3, 4)], ids=str)
def test_a_group_norm_is_torchs(
    space: tuple[int, ...], groups: int, channels_last: bool, scale: bool, shift: bool
) -> None:
    generator = torch.Generator().manual_seed(len(space))
    layer, torchs = (
        GroupNorm(groups, 6, 1e-3, scale, shift, channels_last).double(),
        nn.GroupNorm(groups, 6, 1e-3).double(),
    )
    for name, value in layer.named_parameters():
        value.data = torch.randn(6, generator=generator, dtype=torch.float64)
        getattr(torchs, name).data = value.data
    x = torch.randn(2, 6, *space, generator=generator, dtype=torch.float64)
    given = x.movedim(1, -1).contiguous() if channels_last else x
    before = given.clone()
    if x[0].numel() > groups:  # torch refuses groups of one number
        wanted = torchs(x).movedim(1, -1) if channels_last else torchs(x)
        torch.testing.assert_close(layer(given), wanted, rtol=0, atol=1e-12)
        assert torch.equal(given, before)
        assert torch.autograd.gradcheck(layer, given.requires_grad_())
    else:
        shifted = layer.bias if shift else torch.zeros(6)
        torch.testing.assert_close(layer(given), shifted.double().expand(2, 6), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_group_norm_of_halves_is_computed_as_float32(dtype: torch.dtype) -> None:
    x = (torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)) * 400 + 1000).to(dtype)
    layer = GroupNorm(2, 6, 1e-3)
    found = layer(x)
    assert found.dtype == dtype
    assert torch.equal(found, layer(x.float()).to(dtype)), "squares of 400 are no float16"


def test_a_group_norm_of_values_far_from_zero() -> None:
    """torch's kernel for channels last, at 100 with a deviation of 1, is off by 0.1."""
    x = torch.randn(2, 32, 32, 12, generator=torch.Generator().manual_seed(0)) + 100
    layer = GroupNorm(3, 12, 1e-3)
    torch.testing.assert_close(layer(x).double(), layer.double()(x.double()), rtol=0, atol=2e-4)


def test_a_group_norm_of_no_rows() -> None:
    assert GroupNorm(2, 6, 1e-3)(torch.zeros(0, 4, 6)).shape == (0, 4, 6)
    assert GroupNorm(2, 6, 1e-3)(torch.zeros(3, 0, 6)).shape == (3, 0, 6)


def test_a_layer_norm_with_a_shift_alone_is_torchs_with_a_scale_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    layer, torchs = ShiftedLayerNorm((3, 4), 1e-3).double(), nn.LayerNorm((3, 4), 1e-3).double()
    layer.bias.data.normal_(generator=generator)
    torchs.bias.data = layer.bias.data
    x = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x), torchs(x), rtol=0, atol=1e-12)  # two kernels of torch, in float64
    assert torch.autograd.gradcheck(layer, x)
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert str(layer) == "ShiftedLayerNorm((3, 4), eps=0.001, weight=None)"
