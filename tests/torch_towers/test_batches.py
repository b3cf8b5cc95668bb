"""Batches come in order and whole, on one thread or several, and only where other threads would compute the same."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.torch_towers.towers import word_tower
from torch_towers import batches
from torch_towers.batches import on_one_thread, run_batches
from torch_towers.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("heavy", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 31, 32, 33, 100])
def test_parts_come_in_order(rows: int, threads: int, heavy: bool) -> None:
    seen: list[tuple[int, int]] = []

    def part(start: int, end: int) -> Tensor:
        assert torch.get_num_threads() == (1 if rows >= 32 else threads)  # shared out from four batches on
        seen.append((start, end))
        return torch.arange(start, end, dtype=torch.float32)[:, None] * torch.ones(3)

    found = run_batches(part, rows, 8, device=CPU, to_host=False, heavy=heavy, bar=None)
    assert found.equal(torch.arange(rows, dtype=torch.float32)[:, None] * torch.ones(3))
    assert sorted(seen) == [(start, min(rows, start + 8)) for start in range(0, rows, 8)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_stay(dtype: torch.dtype) -> None:
    found = run_batches(
        lambda start, end: torch.ones(end - start, 2, dtype=dtype),
        5,
        2,
        device=CPU,
        to_host=True,
        heavy=False,
        bar=None,
    )
    assert found.dtype == dtype and found.equal(torch.ones(5, 2, dtype=dtype))


def test_what_holds_for_the_callers_thread_alone_keeps_the_work_there(threads: int) -> None:
    assert batches._may_share() == (threads > 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert not batches._may_share()
    with torch.device("cpu"):  # a mode
        assert not batches._may_share()


def test_one_thread_is_given_back_after_an_error(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        on_one_thread(lambda: 1 // 0)
    assert torch.get_num_threads() == threads


def test_many_batches_equal_one_by_one(threads: int) -> None:
    tower = word_tower()
    rows = [{"word": ("red", "blue", "other")[i % 3], "size": i / 7} for i in range(50)]
    whole = tower.encode(rows, batch_size=5)
    assert whole.equal(torch.cat([tower.encode(rows[i : i + 5]) for i in range(0, 50, 5)]))
    assert np.array_equal(tower.encode(rows, batch_size=5, convert_to_numpy=True), whole.numpy())
    whole.requires_grad_().sum().backward()  # an ordinary tensor, not one of inference mode
    assert whole.grad is not None


@pytest.mark.parametrize("heavy", [True, False])
def test_errors_in_other_threads_reach_the_caller(threads: int, heavy: bool) -> None:
    def part(start: int, end: int) -> Tensor:
        time.sleep(0.001)
        if start == 40:
            raise InputError("row 41: bad")
        return torch.zeros(end - start, 2)

    with pytest.raises(InputError, match="row 41"):
        run_batches(part, 100, 8, device=CPU, to_host=False, heavy=heavy, bar=None)
    assert torch.get_num_threads() == threads


def test_threads_that_a_call_may_use(threads: int) -> None:
    assert batches.threads() == threads
    assert on_one_thread(lambda: (torch.get_num_threads(), batches.threads())) == (1, threads)
    assert batches.threads() == threads

    def fails() -> None:
        raise InputError("x")

    with pytest.raises(InputError):
        on_one_thread(fails)
    assert batches.threads() == threads == torch.get_num_threads()


def test_threads_of_a_pool_are_one_each() -> None:
    seen: list[int] = []

    def part(start: int, end: int) -> Tensor:
        seen.append(batches.threads())
        return torch.zeros(end - start, 1)

    run_batches(part, 64, 8, device=CPU, to_host=False, heavy=True, bar=None)
    assert set(seen) == {1}
