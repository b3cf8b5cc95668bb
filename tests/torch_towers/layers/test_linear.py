"""The fast products are `nn.Linear`'s within the rounding of its sums, and only where nothing but numbers is asked for."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from torch_towers.layers import linear as module
from torch_towers.layers.linear import Linear, linear, linear_relu

needs_native = pytest.mark.skipif(
    module._native is None, reason="the native code was not built, or this processor lacks AVX-512"
)


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_native", None)


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch, no_native: None) -> None:
    monkeypatch.setattr(module, "_ONEDNN", None)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which fast products were taken."""
    taken: list[str] = []
    for name in ("_native", "_ONEDNN"):
        real = getattr(module, name)
        if real is not None:
            monkeypatch.setattr(module, name, lambda *args, _name=name, _real=real: taken.append(_name) or _real(*args))
    return taken


def _layer(inputs: int, outputs: int, bias: bool = True) -> Linear:
    with torch.random.fork_rng():
        torch.manual_seed(inputs * 1000 + outputs)
        return Linear(inputs, outputs, bias=bias)


def _values(rows: int, inputs: int) -> Tensor:
    return torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))


def _exact(layer: Linear, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.double()
    return F.linear(x.double(), layer.weight.double(), bias)


def _rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(37, 19), (100, 256), (256, 130), (1025, 33)])
@pytest.mark.parametrize("rows", [1, 2, 3, 31, 32, 65, 1000])
def test_as_near_to_the_exact_numbers_as_torch(rows: int, shape: tuple[int, int], bias: bool, calls: list[str]) -> None:
    layer, x = _layer(*shape, bias), _values(rows, shape[0])
    with torch.inference_mode():
        found, slow, exact = linear(layer, x), F.linear(x, layer.weight, layer.bias), _exact(layer, x)
        assert found.dtype == slow.dtype and found.shape == slow.shape
        factor = (
            3 if calls == ["_ONEDNN"] else 1.1
        )  # oneDNN adds up one product after the other, as TensorFlow does with it
        assert _rms(found - exact) <= factor * _rms(slow - exact) + 1e-8
        assert torch.equal(linear(layer, x), found)
        assert torch.equal(linear_relu(layer, x), F.relu(found))


@needs_native
@given(
    rows=st.integers(0, 70),
    inputs=st.integers(0, 70),
    outputs=st.integers(0, 20),
    bias=st.booleans(),
    relu=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_edge_of_the_native_product(rows: int, inputs: int, outputs: int, bias: bool, relu: bool) -> None:
    """Small integers, whose sums are exact in any order, between sentinels that must stay."""
    generator = torch.Generator().manual_seed(rows * 7919 + inputs * 71 + outputs)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-9, 10, shape, generator=generator).float()

    x, weight, shift = whole(rows, inputs), whole(outputs, inputs), whole(outputs)
    padded = torch.full((rows * outputs + 64,), 12345.0)
    y = padded[32 : 32 + rows * outputs]
    at = shift.data_ptr() if bias else 0
    module._native(x.data_ptr(), weight.data_ptr(), at, y.data_ptr(), rows, inputs, outputs, relu)
    wanted = F.linear(x, weight, shift if bias else None)
    assert torch.equal(y.reshape(rows, outputs), F.relu(wanted) if relu else wanted)
    assert torch.equal(padded[:32], padded[-32:]) and float(padded[0]) == 12345.0


@needs_native
def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    layer, x = _layer(48, 24), _values(90, 48)
    with torch.inference_mode():
        assert torch.equal(
            linear(layer, x), torch.cat([linear(layer, x[:1]), linear(layer, x[1:34]), linear(layer, x[34:])])
        )


@pytest.mark.parametrize("rows", [4, 70, 100_000])
def test_not_finite_values_stay(rows: int) -> None:
    layer = _layer(8, 4)
    x = torch.zeros(rows, 8)
    x[0, 0], x[1, 1], x[2, 1] = float("nan"), float("inf"), -float("inf")
    with torch.inference_mode():
        slow = F.linear(x, layer.weight, layer.bias)
        for found, wanted in ((linear(layer, x), slow), (linear_relu(layer, x), F.relu(slow))):
            assert torch.equal(found.isnan(), wanted.isnan()) and torch.equal(found.isinf(), wanted.isinf())
            assert torch.equal(found.nan_to_num(0, 0, 0) > 0, wanted.nan_to_num(0, 0, 0) > 0)


def test_views_are_taken_as_they_are() -> None:
    layer = _layer(8, 6)
    layer.weight = nn.Parameter(torch.randn(8, 6).t())
    layer.bias = nn.Parameter(torch.randn(12)[::2])
    x = torch.randn(8, 20).t()
    with torch.inference_mode():
        torch.testing.assert_close(linear(layer, x), F.linear(x, layer.weight, layer.bias))


@needs_native
def test_few_rows_run_natively_and_many_by_onednn(calls: list[str]) -> None:
    layer = _layer(100, 256)
    with torch.inference_mode():
        linear(layer, _values(32, 100))
        linear_relu(layer, _values(1024, 100))
    assert calls == (["_native", "_ONEDNN"] if module._ONEDNN is not None else ["_native"])


def test_changed_weights_count_at_once() -> None:
    layer, x = _layer(20, 10), _values(5, 20)
    with torch.inference_mode():
        before = linear(layer, x)
    layer.weight.data.mul_(2)  # leaves no trace in the version of the weight
    layer.bias.data.mul_(2)
    with torch.inference_mode():
        assert torch.equal(linear(layer, x), 2 * before)


def test_gradients_are_torchs(calls: list[str]) -> None:
    layer, x = _layer(8, 4), _values(256, 8)
    other = copy.deepcopy(layer)
    linear_relu(layer, x).sum().backward()
    F.relu(F.linear(x, other.weight, other.bias)).sum().backward()
    assert layer.weight.grad is not None and torch.equal(layer.weight.grad, other.weight.grad) and not calls


def test_other_ranks_and_dtypes_are_torchs(calls: list[str]) -> None:
    layer = _layer(8, 4)
    with torch.inference_mode():
        assert linear_relu(layer, torch.zeros(2, 200, 8)).shape == (2, 200, 4)
        assert linear(layer, torch.zeros(8)).shape == (4,)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.zeros(9, 8)).dtype == torch.bfloat16
        assert copy.deepcopy(layer).double()(torch.zeros(256, 8).double()).dtype == torch.float64
        with pytest.raises(RuntimeError):
            layer(torch.zeros(3, 7))
    assert not calls


@pytest.mark.parametrize("act", [linear, linear_relu])
def test_swapped_patched_and_hooked_layers_are_called(act: object) -> None:
    assert callable(act)
    x = _values(3, 8)

    class Doubled(Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    twice, patched, hooked = Doubled(8, 4), _layer(8, 4), _layer(8, 4)
    patched.forward = lambda input: torch.ones(3, 4)  # type: ignore[method-assign]
    hooked.register_forward_hook(lambda layer, args, output: output + 7)
    activation = F.relu if act is linear_relu else lambda y: y
    with torch.inference_mode():
        torch.testing.assert_close(act(twice, x), activation(2 * F.linear(x, twice.weight, twice.bias)))
        assert torch.equal(act(patched, x), torch.ones(3, 4))
        torch.testing.assert_close(act(hooked, x), activation(F.linear(x, hooked.weight, hooked.bias) + 7))
        handle = nn.modules.module.register_module_forward_hook(lambda layer, args, output: output - 1)
        try:
            plain = _layer(8, 4)
            torch.testing.assert_close(act(plain, x), activation(F.linear(x, plain.weight, plain.bias) - 1))
        finally:
            handle.remove()


@pytest.mark.parametrize("rows", [5, 100_000])
def test_what_follows_torchs_calls_sees_the_product(rows: int, calls: list[str]) -> None:
    layer, x = _layer(8, 4), _values(rows, 8)
    with torch.inference_mode():
        traced = torch.jit.trace(layer, x, check_trace=False)
        mapped = torch.func.vmap(layer)(torch.stack([x, x + 1]))
        assert torch.allclose(
            mapped[1], F.linear(x + 1, layer.weight, layer.bias), atol=1e-6
        )  # two kernels add up in two orders
        with FlopCounterMode(display=False) as counter:
            layer(x)
        assert counter.get_total_flops() == 2 * rows * 8 * 4
    with torch.no_grad(), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    assert not calls
    assert torch.allclose(tangent, layer.weight.sum(1).expand(rows, 4), atol=1e-6)
    assert torch.allclose(traced(2 * x), layer(2 * x), atol=1e-6)


@needs_native
def test_the_same_without_gradients_and_in_inference_mode(calls: list[str]) -> None:
    layer, x = _layer(8, 4), _values(5, 8)
    with torch.no_grad():
        found = linear(layer, x)
    with torch.inference_mode():
        assert torch.equal(linear(layer, x), found)
    assert calls == ["_native", "_native"] and not found.is_inference() and not found.requires_grad


def test_without_the_native_code(only_torch: None) -> None:
    layer, x = _layer(8, 4), _values(300, 8)
    with torch.inference_mode():
        assert torch.equal(linear_relu(layer, x), F.relu(F.linear(x, layer.weight, layer.bias)))


def test_compiled() -> None:
    layer, x = _layer(8, 4), _values(5, 8)
    compiled = torch.compile(lambda x: linear_relu(layer, x), backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        assert torch.allclose(compiled(x), F.relu(F.linear(x, layer.weight, layer.bias)))
