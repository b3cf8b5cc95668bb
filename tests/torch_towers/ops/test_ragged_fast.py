"""The fast path for padding integer rows equals the general path, including errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_towers.errors import InputError
from torch_towers.ops import ragged


def _not_plain(*operands: Any) -> None:
    """Other operands take the general path."""


def _assert_fast_is_slow(operands: tuple[Any, ...], types: tuple[str, ...]) -> None:
    def padded() -> Any:
        try:
            return ragged.ragged_to_tensor(*operands, types=types)
        except (InputError, RuntimeError, IndexError) as error:
            return str(error)

    found = padded()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "_padded_rows", _not_plain)
        expected = padded()
    if isinstance(expected, str):
        assert found == expected
    else:
        assert found.dtype == expected.dtype and torch.equal(found, expected)


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), max_size=5),
    damage=st.integers(-3, 3),
    width=st.sampled_from([None, -1, 0, 1, 3, 9]),
    rows=st.sampled_from([-1, 0, 2]),
    dtypes=st.tuples(st.sampled_from([torch.int32, torch.int64]), st.sampled_from([torch.int32, torch.int64])),
)
def test_equals_the_general_way(
    lengths: list[int], damage: int, width: int | None, rows: int, dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    splits = torch.tensor([0, *lengths]).cumsum(0).to(dtypes[1])
    if abs(damage) == 3:
        splits[-1] += damage
    elif damage == 2:
        splits[0] += 1
    values = torch.arange(1, sum(lengths) + 1, dtype=dtypes[0])
    shape = () if width is None else (rows, width)
    _assert_fast_is_slow((values, torch.tensor(-7, dtype=dtypes[0]), (splits,), *shape), ("ROW_SPLITS",))


@settings(max_examples=300, deadline=None)
@given(
    ids=st.lists(st.integers(0, 4), max_size=12),
    order=st.sampled_from(["sorted", "sorted", "sorted", "as it is"]),
    damage=st.sampled_from([None, None, None, -1, 9]),
    size=st.integers(0, 6),
    width=st.sampled_from([None, -1, 0, 1, 3, 9]),
    rows=st.sampled_from([-1, 0, 2, 5]),
    dtypes=st.tuples(st.sampled_from([torch.int32, torch.int64]), st.sampled_from([torch.int32, torch.int64])),
)
def test_row_ids_equal_the_general_way(
    ids: list[int], order: str, damage: int | None, size: int, width: int | None, rows: int, dtypes: Any
) -> None:
    listed = sorted(ids) if order == "sorted" else ids
    named = torch.tensor([*listed, *([] if damage is None else [damage])], dtype=dtypes[1])
    values = torch.arange(1, len(listed) + 1, dtype=dtypes[0])
    shape = () if width is None else (rows, width)
    pad, count = torch.tensor(-7, dtype=dtypes[0]), torch.tensor(size, dtype=dtypes[1])
    _assert_fast_is_slow((values, pad, (count, named), *shape), ("FIRST_DIM_SIZE", "VALUE_ROWIDS"))
