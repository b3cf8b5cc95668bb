"""Rows of tensors and of arrays of bytes, taken and placed alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torch_towers.formats.byte_strings import strings
from torch_towers.ops.rows import concat, distinct, filled, ints, place, ranges, take

NUMBERS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
TEXTS = strings([b"a", b"b", b"c"])


def listed(rows: Any) -> Any:
    return rows.tolist()


@pytest.mark.parametrize("values", [NUMBERS, NUMBERS.to(torch.bfloat16), NUMBERS.to(torch.int16), TEXTS])
def test_there_and_back(values: Any) -> None:
    index = torch.tensor([2, 0, 1])
    taken = take(values, index)
    assert listed(taken)[0] == listed(values)[2]
    out = taken.clone() if isinstance(taken, torch.Tensor) else taken.copy()
    assert place(out, index, taken) is out
    assert listed(out) == listed(values)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_last_of_several_wins(requires_grad: bool) -> None:
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=requires_grad)
    assert place(torch.zeros(2), torch.tensor([0, 1, 0]), values).tolist() == [3.0, 2.0]
    assert place(filled((2,), strings([b""])), torch.tensor([0, 1, 0]), TEXTS).tolist() == [b"c", b"b"]


def test_filled_is_a_new_array() -> None:
    row = torch.tensor([1.0, 2.0])
    made = filled((3, 2), row)
    made[0, 0] = 9  # type: ignore[index]
    assert row.tolist() == [1.0, 2.0]
    assert listed(made) == [[9.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    assert filled((2, 1), strings([b"x"])).tolist() == [[b"x"], [b"x"]]


def test_distinct() -> None:
    found, where, counts = distinct(torch.tensor([5, 3, 5, 5]))
    assert (ints(found), ints(where), ints(counts)) == ([3, 5], [1, 0, 1, 1], [1, 3])


def test_ranges_and_joins() -> None:
    assert ints(ranges(torch.tensor([2, 0, 3]))) == [0, 1, 0, 1, 2]
    assert listed(concat([NUMBERS, NUMBERS[:1]])) == [*NUMBERS.tolist(), [1.0, 2.0]]
    assert np.array_equal(concat([TEXTS, TEXTS[:1]]), strings([b"a", b"b", b"c", b"a"]))
