"""The values that converters exchange."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from porting.conversion.shape_arithmetic import as_dimensions, vector
from porting.conversion.values import Constant, Dimensions, Sizes, Value, constant


@pytest.mark.parametrize(
    "value, dtype, shape, python",
    [
        (b"red", "string", (), b"red"),
        (np.array([b"red", b""], object), "string", (2,), [b"red", b""]),
        (np.float32([[1.5]]), "float32", (1, 1), [[1.5]]),
        (torch.tensor(True), "bool", (), True),
        ([1, 2], "int64", (2,), [1, 2]),
    ],
)
def test_a_constant_of_anything(value: object, dtype: str, shape: tuple[int, ...], python: object) -> None:
    found = constant(value)
    assert (found.dtype, found.shape, found.python()) == (dtype, shape, python)


def test_a_constant_of_numbers_may_be_asked_for_by_dtype() -> None:
    assert constant([1, 2], torch.int32).dtype == "int32"


def test_dimensions_are_the_elements_of_what_is_known_and_else_the_tensor_itself() -> None:
    run_time = Value("n", "size", ())
    sizes = Sizes(vector([2, run_time]), "int32")
    assert sizes.shape == (2,)
    assert as_dimensions(sizes) == (2, run_time)
    assert as_dimensions(Constant(torch.tensor([3, -1]))) == (3, -1)
    assert as_dimensions(Constant(torch.tensor(4))) == (4,)
    tensor = Value("x", "int32", (None,))
    assert as_dimensions(tensor) == (tensor,)
    assert type(as_dimensions(tensor)) is Dimensions
