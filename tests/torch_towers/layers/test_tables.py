"""Lookup tables: results and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_towers.errors import CheckpointError, InputError
from torch_towers.layers.tables import LookupTable
from torch_towers.ops.strings import strings

WORDS = strings([b"a", b"", b"\xff\0"], (3,))


def test_shapes_and_dtypes() -> None:
    table = LookupTable(WORDS, torch.tensor([5, 6, 7]))
    x = strings([b"\xff\0", b"b", b"", b"a"], (2, 1, 2))
    found = table(x, torch.tensor(-1))
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.int64
    assert found.tolist() == [[[7, -1]], [[6, 5]]]
    assert table(x[:0], torch.tensor(-1)).shape == (0, 1, 2)
    assert table(strings([b"a"], ()), torch.tensor(-1)).shape == ()


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int32, torch.uint64, torch.float16, torch.bfloat16, torch.float64, torch.bool]
)
def test_every_dtype_of_values(dtype: torch.dtype) -> None:
    values = torch.tensor([1, 0, 1]).to(dtype)
    found = LookupTable(WORDS, values)(WORDS[::-1], torch.tensor(0).to(dtype))
    assert isinstance(found, torch.Tensor)
    assert found.dtype == dtype
    assert (
        found.tolist() == values.flip(0).tolist()
        if dtype.is_floating_point
        else found.tolist() == values.tolist()[::-1]
    )


def test_ids_to_strings() -> None:
    found = LookupTable(torch.tensor([3, 1]), WORDS[:2])(torch.tensor([[1, 2], [3, 3]]), strings([b"?"], ()))
    assert found.tolist() == [[b"", b"?"], [b"a", b"a"]]


def test_floats_as_keys() -> None:
    table = LookupTable(torch.tensor([0.1, 0.0, float("nan")]), torch.tensor([1, 2, 3]))
    assert table(torch.tensor([0.1, -0.0, float("nan")]), torch.tensor(0)).tolist() == [1, 2, 0]


def test_values_that_are_vectors() -> None:
    table = LookupTable(WORDS, torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert table(strings([b"", b"?"], (2,)), torch.tensor([0.0, -1.0])).tolist() == [[3.0, 4.0], [0.0, -1.0]]
    words = LookupTable(torch.tensor([7]), strings([b"x", b"y"], (1, 2)))
    assert words(torch.tensor([7, 8]), strings([b"-", b"-"], (2,))).tolist() == [[b"x", b"y"], [b"-", b"-"]]


def test_as_many_values_as_keys() -> None:
    with pytest.raises(CheckpointError, match=r"\[3\] keys and \[2\] values"):
        LookupTable(WORDS, torch.tensor([1, 2]))
    assert len(LookupTable(np.array([], object), torch.tensor([], dtype=torch.int64))) == 0


def test_defaults_of_another_shape() -> None:
    table = LookupTable(torch.tensor([1]), torch.tensor([2]), default_per_key=True)
    assert table(torch.tensor([1, 5, 6]), torch.tensor([7, 8, 9])).tolist() == [2, 8, 9]
    with pytest.raises(InputError, match=r"Expected shape \[\] or \[1\] for default value, got \[2\]"):
        table(torch.tensor([1]), torch.tensor([7, 8]))
