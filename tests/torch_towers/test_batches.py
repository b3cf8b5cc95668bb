"""Batches come in order and whole; small work stays on one thread, and gives the others back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.torch_towers.towers import word_tower
from torch_towers import batches
from torch_towers.batches import on_all_threads, on_one_thread, run_batches
from torch_towers.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 31, 32, 33, 100])
def test_parts_come_in_order(rows: int) -> None:
    seen: list[tuple[int, int]] = []

    def part(start: int, end: int) -> Tensor:
        seen.append((start, end))
        return torch.arange(start, end, dtype=torch.float32)[:, None] * torch.ones(3)

    found = run_batches(part, rows, 8, device=CPU, to_host=False, bar=None)
    assert found.equal(torch.arange(rows, dtype=torch.float32)[:, None] * torch.ones(3))
    assert seen == [(start, min(rows, start + 8)) for start in range(0, rows, 8)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    found = run_batches(lambda start, end: torch.ones(end - start, 2, dtype=dtype), 5, 2, device=CPU, to_host=True, bar=None)  # fmt: skip
    assert found.dtype == dtype and found.equal(torch.ones(5, 2, dtype=dtype))


def test_the_result_shares_no_memory_with_what_a_tower_was_given() -> None:
    given = torch.ones(4, 2)
    found = run_batches(lambda start, end: given[start:end], 4, 8, device=CPU, to_host=True, bar=None)
    found.zero_()
    assert given.equal(torch.ones(4, 2))


def test_many_batches_equal_one_by_one(threads: int) -> None:
    tower = word_tower()
    rows = [{"word": ("red", "blue", "other")[i % 3], "size": i / 7} for i in range(50)]
    whole = tower.encode(rows, batch_size=5)
    assert whole.equal(torch.cat([tower.encode(rows[i : i + 5]) for i in range(0, 50, 5)]))
    assert np.array_equal(tower.encode(rows, batch_size=5, convert_to_numpy=True), whole.numpy())
    whole.requires_grad_().sum().backward()  # an ordinary tensor, not one of inference mode
    assert whole.grad is not None


def test_threads_that_a_call_may_use(threads: int) -> None:
    def seen() -> tuple[int, int]:
        return torch.get_num_threads(), batches.threads()

    assert seen() == on_all_threads(seen) == (threads, threads)
    assert on_one_thread(seen) == (1, threads)
    assert on_one_thread(lambda: (on_all_threads(seen), seen())) == ((threads, threads), (1, threads))
    assert seen() == (threads, threads)


@pytest.mark.parametrize("held", [on_one_thread, lambda run: on_one_thread(on_all_threads, run)])
def test_threads_are_given_back_after_an_error(held: Any, threads: int) -> None:
    def fails() -> None:
        raise InputError("x")

    with pytest.raises(InputError):
        held(fails)
    assert batches.threads() == threads == torch.get_num_threads()
