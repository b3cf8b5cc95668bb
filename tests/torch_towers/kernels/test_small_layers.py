"""The native kernels of small layers equal torch's own layers in float64, with every instruction set."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_towers.kernels import native, small_layers
from torch_towers.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN
from torch_towers.ops.attention import attention
from torch_towers.ops.nn import softmax

EPS = torch.finfo(torch.float32).eps
KINDS = range(native.layers.kernels if native.layers is not None else 0)
CELLS = [
    (SimpleRNN, {}), (SimpleRNN, {"activation": "relu"}), (SimpleRNN, {"activation": "linear"}), (LSTM, {}),
    (LSTM, {"forget_bias": 1.0, "recurrent_activation": "clipped_line"}), (GRU, {}), (GRU, {"activation": "sigmoid"}),
    (GRU, {"reset_after": False, "recurrent_activation": "hard_sigmoid", "slope": 1 / 6}),
]  # fmt: skip


@pytest.fixture(params=KINDS, autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each variant in turn; without the native code there are no tests here."""
    monkeypatch.setattr(native, "kernel", request.param)
    with torch.no_grad():
        yield


def close(found: Tensor, expected: Tensor, steps: float) -> None:
    """Equal within `steps` roundings of numbers of at most 10; NaN and infinity stay."""
    torch.testing.assert_close(found.double(), expected, rtol=steps * EPS, atol=steps * EPS, equal_nan=True)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    mask=st.sampled_from(["none", "bool", "rows", "float"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_attention(sizes: tuple[int, int, int, int, int], mask: str, flags: tuple[bool, bool, bool]) -> None:
    """Also places that may see nothing, masks that are broadcast, heads between other axes, and few heads."""
    (rows, heads, t, s, dim), (heads_last, empty, with_heads) = sizes, flags
    draw = torch.Generator().manual_seed(sum(sizes))
    small_layers._FEW_HEADS, few = 0, small_layers._FEW_HEADS
    shapes = (rows, heads, t, dim), (rows, heads, s, dim), (rows, heads, s, dim + 1)
    given_to = [torch.randn(shape, generator=draw) for shape in shapes]
    if not with_heads:
        given_to, heads_last = [each[:, 0] for each in given_to], False
    allowed = torch.rand((t, s) if mask == "rows" or not with_heads else (rows, 1, t, s), generator=draw) < 0.5
    masks = {"none": None, "float": torch.where(allowed, 0.5, -1e9)}.get(mask, allowed)
    turned = [each.transpose(1, 2).contiguous() for each in given_to] if heads_last else given_to
    try:
        found = attention(*turned, masks, scale=0.5, heads_last=heads_last, empty=empty)
        assert small_layers.attention(*given_to, masks, 0.5, empty) is not None
    finally:
        small_layers._FEW_HEADS = few
    doubles = [each.double() for each in turned]
    wide = None if masks is None else masks.double() if mask == "float" else masks
    expected = attention(*doubles, wide, scale=0.5, heads_last=heads_last, empty=empty)
    if mask == "float":  # a sum with -1e9 keeps no digit of the score
        some = allowed.any(-1).expand(expected.shape[:-1] if not heads_last else expected.transpose(1, 2).shape[:-1])
        some = some.transpose(1, 2) if heads_last else some
        found, expected = found[some], expected[some]
    close(found, expected, 20)


def test_attention_keeps_nan_and_infinity() -> None:
    """As TensorFlow's products and softmax do; torch's attention gives 0 for such a query."""
    query, key, value = (torch.ones(8, 1, 3, 2) for _ in range(3))
    query[0, 0, 0, 0] = math.nan
    value[2, 0, 2, 1] = math.inf
    expected = torch.softmax(query.double() @ key.double().mT, -1) @ value.double()
    assert expected.isnan().sum() == 2
    close(attention(query, key, value, scale=1.0), expected, 4)


@pytest.mark.parametrize("size", [1, 5, 16, 31])
def test_softmax(size: int) -> None:
    """Also numbers whose exponential is 0, denormal or infinite."""
    x = torch.randn(600, size, generator=torch.Generator().manual_seed(size)) * 30
    x[:8, 0] = torch.tensor([90, -90, -103, 1e30, -1e30, -math.inf, math.nan, math.inf])
    assert small_layers.softmax(x) is not None
    close(softmax(x.reshape(2, 300, size)), torch.softmax(x.double().reshape(2, 300, size), -1), 8)


@pytest.mark.parametrize(("cell", "options"), CELLS, ids=str)
def test_recurrent_layers(cell: type[Recurrent], options: dict[str, object]) -> None:
    draw = torch.Generator().manual_seed(0)
    for sequences, state, backwards, zero, bias in product((False, True), repeat=5):
        layer = cell(3, 5, bias, sequences, state, backwards, zero, **options)  # type: ignore[reportArgumentType]
        for weight in layer.parameters():
            weight.data = torch.randn(weight.shape, generator=draw) / 2
        double = copy.deepcopy(layer).double()
        for rows, masked in product((1, 2, 19), (False, True)):
            x = torch.randn(6, rows, 3, generator=draw).transpose(0, 1)
            mask = torch.rand(rows, 6, generator=draw) > 0.4 if masked else None
            if mask is not None:
                mask[0] = rows == 1  # a row of no steps among others
            first = [torch.randn(rows, 5, generator=draw) for _ in range(layer.states)] if rows > 1 else []
            assert layer._small(x, mask, tuple(first)) is not None
            found, expected = layer(x, mask, *first), double(x.double(), mask, *(each.double() for each in first))
            pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
            for ours, torchs in pairs:
                close(ours, torchs, 200)  # six steps, each of which can double an error of the one before


def test_large_layers_and_numbers_that_are_observed_are_left_to_torch() -> None:
    x = torch.randn(8, 2, 4, 4)
    assert small_layers.attention(x, x, x, None, 1.0, False) is not None
    wide = torch.randn(8, 2, 4, 512)
    assert small_layers.attention(wide, wide, wide, None, 1.0, False) is None
    assert small_layers.softmax(torch.randn(600, 100)) is None
    layer = GRU(4, 300)
    assert layer._small(x[0], None, ()) is None
    with torch.enable_grad():
        assert small_layers.attention(x.requires_grad_(), x, x, None, 1.0, False) is None
        assert GRU(4, 3)._small(x[0], None, ()) is None


def test_other_arrays_are_refused() -> None:
    x = torch.zeros(2, 1, 3, 4).numpy()
    out = torch.zeros(2, 3, 1, 4).numpy()
    for wrong in (x[:1], x.astype("d"), x[..., :2], x[0]):
        with pytest.raises(ValueError, match="no such arrays"):
            native.layers.attention(x, wrong, x, None, out, 1.0, False, native.kernel)
    with pytest.raises(ValueError, match="no such arrays"):
        native.layers.attention(x, x, x, None, out, 1.0, False, 9)
    flat = torch.zeros(4, 3).numpy()
    with pytest.raises(ValueError, match="no such arrays"):
        native.layers.softmax(flat, flat[:2].copy(), native.kernel)
    with pytest.raises(ValueError, match="no such arrays"):
        native.layers.recurrent(
            x[:, 0], None, (flat, flat, None, None), (), None, flat, (flat,), (2, 2, 3, False, 0.2, 0.0), native.kernel
        )
