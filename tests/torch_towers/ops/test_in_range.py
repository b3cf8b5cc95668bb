"""`in_range` accepts exactly the indices in [0, limit), for any dtype and layout."""

from __future__ import annotations

import pytest
import torch

from torch_towers.errors import InputError
from torch_towers.ops.array import in_range

LOWEST = {torch.int32: -(2**31), torch.int64: -(2**63), torch.int16: -(2**15)}


@pytest.mark.parametrize("dtype", LOWEST)
@pytest.mark.parametrize("limit", [1, 5, 2**15 - 1])
def test_edges(dtype: torch.dtype, limit: int) -> None:
    for values in ([], [0], [limit - 1], [0, limit - 1, 0]):
        x = torch.tensor(values, dtype=dtype)
        assert in_range(x, limit) is x
    for bad in (-1, limit, -limit, LOWEST[dtype], -LOWEST[dtype] - 1):
        with pytest.raises(InputError, match=rf"indices\[1\] = {bad} is not in \[0, {limit}\)"):
            in_range(torch.tensor([0, bad, 0], dtype=dtype), limit)
        with pytest.raises(InputError, match=rf"indices = {bad} is not in"):
            in_range(torch.tensor(bad, dtype=dtype), limit)


def test_nothing_fits_a_table_without_rows() -> None:
    assert in_range(torch.zeros(0, 3, dtype=torch.int64), 0).shape == (0, 3)
    with pytest.raises(InputError, match=r"is not in \[0, 0\)"):
        in_range(torch.zeros(1, dtype=torch.int64), 0)


def test_views() -> None:
    x = torch.arange(24).reshape(4, 6)
    for view, worst in ((x.T, 23), (x[:, ::2], 22), (x[1:3], 17), (x[:1].expand(5, 6), 5)):
        assert in_range(view, worst + 1) is view
        with pytest.raises(InputError, match=f"= {worst} is not in"):
            in_range(view, worst)
