"""Unique names: the first number that nobody has."""

from __future__ import annotations

from torch_towers.graph.names import numbered


def test_the_name_itself_where_it_is_free() -> None:
    assert numbered("dense", {"dense_2"}.__contains__) == "dense"


def test_the_first_number_that_is_free() -> None:
    assert numbered("dense", {"dense", "dense_2", "dense_4"}.__contains__) == "dense_3"


def test_numbers_below_the_start_are_skipped() -> None:
    assert numbered("dense", {"dense"}.__contains__, 5) == "dense_5"
