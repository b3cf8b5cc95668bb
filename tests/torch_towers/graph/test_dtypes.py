"""The names of dtypes are TensorFlow's, one for each of torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_towers.graph.dtypes import DTYPE_NAMES, FLOATS, TORCH_DTYPES, dtype_name, torch_dtype


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_there_and_back(name: str) -> None:
    assert torch_dtype(name) == getattr(torch, name)
    assert dtype_name(torch.empty(0, dtype=torch_dtype(name))) == name
    assert torch_dtype(name).is_floating_point == (name in FLOATS)


def test_values_that_are_no_tensors() -> None:
    assert dtype_name(np.array([b"a"], object)) == "string"
    assert dtype_name([torch.ones(1)]) == "variant"
    assert dtype_name(3) == "size"


def test_what_torch_does_not_hold() -> None:
    with pytest.raises(KeyError):
        torch_dtype("string")
    assert len(DTYPE_NAMES) == len(TORCH_DTYPES)
