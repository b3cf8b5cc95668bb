"""Masked recurrent layers: torch's packed kernel equals the loop, including gradients."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from torch_towers.layers.recurrent import GRU, LSTM, Recurrent, SimpleRNN

FLAGS = list(product((False, True), repeat=4))


@pytest.mark.parametrize("kind", [GRU, LSTM, SimpleRNN])
def test_rows_of_different_lengths(kind: type[Recurrent]) -> None:
    draw = torch.Generator().manual_seed(0)
    for sequences, backwards, zero, state in FLAGS:
        layer = kind(3, 4, True, sequences, state, backwards, zero).double()
        for weight in layer.parameters():
            weight.data = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
        for rows in (1, 2, 5):
            x = torch.randn(rows, 6, 3, generator=draw, dtype=torch.float64, requires_grad=True)
            mask = torch.rand(rows, 6, generator=draw) > 0.4
            mask[0] = rows == 1  # a row of no steps among others
            first = [torch.randn(rows, 4, generator=draw, dtype=torch.float64) for _ in range(layer.states)]
            found: list[list[torch.Tensor]] = []
            for layer.has_kernel in (True, False):
                given = layer(x, mask, *(first if rows > 1 else []))
                values = list(given) if isinstance(given, tuple) else [given]
                total = torch.stack([value.square().sum() for value in values]).sum()
                gradients = torch.autograd.grad(total, [x, *layer.parameters()])
                found.append([*values, *gradients])
            for ours, loop in zip(*found, strict=True):
                torch.testing.assert_close(ours, loop, rtol=0, atol=1e-12)  # float64, values below 10


def test_no_steps_at_all_have_gradients_of_zero() -> None:
    layer = GRU(3, 4, return_sequences=True)
    layer(torch.ones(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool)).sum().backward()
    assert layer.weight_hh.grad is not None
    assert not layer.weight_hh.grad.any()


def test_a_row_without_steps_keeps_its_state_and_gives_zeros() -> None:
    layer = LSTM(3, 4, return_state=True)
    torch.nn.init.ones_(layer.weight_ih)
    mask = torch.tensor([[True, False], [False, False]])
    first = torch.full((2, 4), 0.5), torch.full((2, 4), 2.0)
    for layer.has_kernel in (True, False):
        result, h, c = layer(torch.ones(2, 2, 3), mask, *first)
        assert torch.equal(result[0], h[0])
        assert result[0].all()
        assert not result[1].any()
        assert (h[1].tolist(), c[1].tolist()) == ([0.5] * 4, [2.0] * 4)


def test_another_activation_is_computed_step_by_step() -> None:
    layer = SimpleRNN(1, 1, return_sequences=True, activation="linear")
    torch.nn.init.ones_(layer.weight_ih)
    torch.nn.init.constant_(layer.weight_hh, 2.0)
    assert layer(torch.ones(1, 4, 1)).flatten().tolist() == [1.0, 3.0, 7.0, 15.0]
    with pytest.raises(ValueError, match="no activation is called 'sine'"):
        GRU(1, 1, recurrent_activation="sine")


def test_threads_share_large_steps_only() -> None:
    """A kernel wakes them at each of its steps."""
    layer, everyone = LSTM(8, 64), torch.get_num_threads()

    def count(x: torch.Tensor, sizes: torch.Tensor | None = None) -> int:
        return layer._called(lambda *_: torch.get_num_threads(), x, (), [], sizes)

    assert count(torch.zeros(4, 3, 8)) == 1
    assert count(torch.zeros(1024, 3, 8)) == everyone, "1,024 rows of 64 x 256 multiplications"
    assert count(torch.zeros(1024, 8), torch.tensor([4, 2])) == 1, "packed: as many rows as the first step has"
    assert torch.get_num_threads() == everyone
