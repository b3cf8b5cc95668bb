"""Batches are complete and in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.torch_towers.towers import word_tower
from torch_towers.program.batches import run_batches

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
