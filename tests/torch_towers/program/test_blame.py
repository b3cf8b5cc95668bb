"""Which row a tower cannot run on, and which feature of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torch_towers.program.blame import Blame, blamed

COLUMNS = {
    "word": np.array([b"a", b"b", b"c", b"d", b"e"], object),
    "numbers": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]),
}


def found(bad: Any, whole: bool = False, asked: list[int] | None = None) -> Blame | None:
    """`bad(word, numbers)` says of a row whether it fails."""

    def fails(columns: dict[str, Any]) -> bool:
        if asked is not None:
            asked.append(len(columns["word"]))
        rows = zip(columns["word"], columns["numbers"].tolist(), strict=False)
        return any(bad(word, numbers) for word, numbers in rows)

    return blamed(COLUMNS, 5, fails, lambda a, b: {name: c[a:b] for name, c in COLUMNS.items()}, whole=whole)


@pytest.mark.parametrize("row", range(5))
def test_the_row_and_its_feature(row: int) -> None:
    word = b"abcde"[row : row + 1]
    assert found(lambda w, _: w == word) == Blame(row, "word", word)
    assert found(lambda _, n: n[0] == 2 * row + 1) == Blame(row, "numbers", [2.0 * row + 1, 2.0 * row + 2])


def test_the_first_of_several_rows() -> None:
    assert found(lambda w, _: w in (b"b", b"e")) == Blame(1, "word", b"b")


def test_no_feature_alone() -> None:
    """Either neutral value still fails."""
    assert found(lambda w, n: w == b"c" or n[0] == 5.0) == Blame(2, None, None)


def test_no_row_alone() -> None:
    assert found(lambda *_: False) is None


def test_rows_are_halved() -> None:
    asked: list[int] = []
    found(lambda w, _: w == b"e", asked=asked)
    assert asked[:3] == [2, 1, 1]  # rows 0-1, row 2, row 3: none; row 4 is left


def test_rows_that_cannot_be_told_apart_are_run_together() -> None:
    asked: list[int] = []
    assert found(lambda w, _: w == b"e", whole=True, asked=asked) is not None
    assert asked[0] == 5
