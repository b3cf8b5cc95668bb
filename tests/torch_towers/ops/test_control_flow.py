"""Loops run as long as their condition holds, or as the caller allows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from torch_towers.errors import InputError
from torch_towers.ops.control_flow import at_most_steps, while_loop
from torch_towers.ops.sizes import size_add, size_mul, size_sub


def count(steps: int) -> Any:
    """A loop that takes some steps."""
    (counted,) = while_loop(torch.tensor(0), cond=lambda i: (i < steps,), body=lambda i: (i + 1,), carried=1)
    return int(counted)


def test_a_loop_takes_no_more_steps_than_are_allowed() -> None:
    with at_most_steps(10):
        assert count(10) == 10
        with pytest.raises(InputError, match="more than 10 steps"):
            count(11)
    assert count(1000) == 1000


def test_sizes_are_int64() -> None:
    largest = (1 << 63) - 1
    assert size_add(largest - 1, 1) == largest
    assert size_sub(-largest, 1) == -largest - 1
    for op, a, b in ((size_add, largest, 1), (size_sub, -largest, 2), (size_mul, 1 << 32, 1 << 31)):
        with pytest.raises(InputError, match="overflows int64"):
            op(a, b)
