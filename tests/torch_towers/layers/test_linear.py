"""The fast products are `nn.Linear`'s within the rounding of its sums; who follows torch's calls is in test_calls.py."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.kernels import matmul as module
from torch_towers.layers.linear import EinsumDense, Linear, linear, linear_relu
from torch_towers.ops.nn import relu


def _layer(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(inputs * 1000 + outputs)
        return Linear(inputs, outputs, bias=bias)


def _values(rows: int, inputs: int) -> Tensor:
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))


def _bound(layer: nn.Linear, x: Tensor) -> Tensor:
    """What rounding can do, in any order of summation: n additions of products, each half an ulp of the sum of their sizes."""
    sizes = F.linear(
        x.double().abs(), layer.weight.double().abs(), None if layer.bias is None else layer.bias.double().abs()
    )
    return sizes * (layer.in_features + 1) * 2**-24


def test_it_is_torchs_own_class() -> None:
    """So that whatever looks for `nn.Linear` by its type finds it."""
    assert Linear is nn.Linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(37, 19), (100, 256), (256, 130), (1025, 33)])
@pytest.mark.parametrize("rows", [1, 2, 31, 65, 1000])
@torch.no_grad()
def test_within_rounding_of_the_exact_numbers(rows: int, shape: tuple[int, int], bias: bool) -> None:
    layer, x = _layer(*shape, bias), _values(rows, shape[0])
    exact = F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())
    for found, wanted in ((linear(layer, x), exact), (linear_relu(layer, x), F.relu(exact))):
        assert found.dtype == torch.float32 and found.shape == wanted.shape
        assert bool(((found.double() - wanted).abs() <= _bound(layer, x)).all())


@pytest.mark.parametrize("rows", [4, 70, 100_000])
@torch.inference_mode()
def test_not_finite_values_stay(rows: int) -> None:
    layer = _layer(8, 4)
    x = torch.zeros(rows, 8)
    x[0, 0], x[1, 1], x[2, 1] = float("nan"), float("inf"), -float("inf")
    slow = F.linear(x, layer.weight, layer.bias)
    for found, wanted in ((linear(layer, x), slow), (linear_relu(layer, x), F.relu(slow))):
        assert torch.equal(found.isnan(), wanted.isnan()) and torch.equal(found.isinf(), wanted.isinf())
        assert torch.equal(found.nan_to_num(0, 0, 0) > 0, wanted.nan_to_num(0, 0, 0) > 0)
    without = linear_relu(layer, x, no_nan=True)
    assert torch.equal(without, relu(linear(layer, x), no_nan=True)) and not bool(without.isnan().any())


@pytest.mark.parametrize("rows", [20, 100_000])
@torch.inference_mode()
def test_views_are_taken_as_they_are(rows: int) -> None:
    layer = _layer(8, 6)
    layer.weight = nn.Parameter(torch.randn(8, 6).t())
    layer.bias = nn.Parameter(torch.randn(12)[::2])
    x = torch.randn(8, rows).t()
    bound = _bound(layer, x).max().item()
    torch.testing.assert_close(linear(layer, x), F.linear(x, layer.weight, layer.bias), rtol=0, atol=bound)


@pytest.mark.skipif(module._onednn is None, reason="torch has no oneDNN here")
@torch.inference_mode()
def test_many_rows_run_on_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = module._onednn
    monkeypatch.setattr(module, "_onednn", lambda a, *rest: calls.append(len(a)) or real(a, *rest))
    layer = _layer(100, 256)
    linear(layer, _values(32, 100))
    linear_relu(layer, _values(1024, 100))
    assert calls == [1024]
    for other in (_values(1024, 100).double(), _values(1024, 100).unsqueeze(0), _values(2048, 100)[::2]):
        linear(copy.deepcopy(layer).to(other.dtype), other)
    assert calls == [1024]
    with pytest.raises(RuntimeError):
        linear(layer, _values(1024, 99))


@pytest.mark.parametrize("rows", [5, 100_000])
def test_changed_weights_count_at_once(rows: int) -> None:
    layer, x = _layer(20, 10), _values(rows, 20)
    with torch.inference_mode():
        before = linear(layer, x)
    layer.weight.data.mul_(2)  # leaves no trace in the version of the weight
    layer.bias.data.mul_(2)
    with torch.inference_mode():
        assert torch.equal(linear(layer, x), 2 * before)  # the same code, and 2 changes no rounding


@pytest.mark.parametrize("bias", [None, (6,), (5, 1), (5, 6)], ids=str)
def test_each_place_has_its_own_matrix(bias: tuple[int, ...] | None) -> None:
    layer = EinsumDense("abc,bcd->abd", (5, 4, 6), bias).double()
    generator = torch.Generator().manual_seed(0)
    for weight in layer.parameters():
        weight.data.normal_(generator=generator)
    x = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    wanted = torch.stack([x[:, place] @ layer.weight[place] for place in range(5)], 1)
    torch.testing.assert_close(layer(x), wanted if layer.bias is None else wanted + layer.bias)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)(x), layer(x))


def test_it_prints_its_axes() -> None:
    assert str(EinsumDense("ab,bc->ac", (2, 3), (3,))) == "EinsumDense('ab,bc->ac', [2, 3], bias=[3])"
    assert str(EinsumDense("ab,bc->ac", (2, 3))) == "EinsumDense('ab,bc->ac', [2, 3])"
