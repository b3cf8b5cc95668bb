"""Blame: which row, and which feature of it, a tower cannot run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Columns = dict[str, Any]


class Blame(NamedTuple):
    """The row that fails alone, and the feature that makes it fail with its value; no feature where several do together."""

    row: int
    feature: str | None
    value: Any


def blamed(
    columns: Columns, rows: int, fails: Callable[[Columns], bool], cut: Callable[[int, int], Columns], *, whole: bool
) -> Blame | None:
    """Finds by halving the first row of `columns` that fails alone, then the feature by putting a neutral value in its place.

    Of 8 rows whose row 5 fails, `fails` is asked of rows 0-3 (no), 4-5 (yes) and 4 (no), then of row 5 alone. `cut(start, end)` gives
    some rows; `whole`: the rows cannot be told apart. None where no row fails alone.
    """
    low, high = 0, rows
    while high - low > 1 and not whole:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(cut(low, middle)) else (middle, high)
    row = cut(low, high)
    if not fails(row):
        return None
    for name, column in columns.items():
        if not fails({**row, name: _neutral(column)}):
            values: list[Any] = row[name].reshape(-1).tolist()
            return Blame(low, name, values[0] if len(values) == 1 else values)
    return Blame(low, None, None)


def _neutral(column: Any) -> Any:
    """A harmless value for one row: zero, or the empty string."""
    shape = (1, *column.shape[1:])
    return torch.zeros(shape, dtype=column.dtype) if isinstance(column, Tensor) else np.full(shape, b"", object)
