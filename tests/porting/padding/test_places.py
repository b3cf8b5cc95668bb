"""What is known of a value when rows are cut at their ends, through ops that work place by place."""

from __future__ import annotations

from typing import Any

import pytest

from porting.padding.places import WHOLE, Marked, Places, elementwise
from torch_towers.graph.graph import Node

ROW = Places({1: 0})  # [n, length], with 0 behind the end
ANY = Places({1: None})


def through(
    op: str, *parts: Places, numbers: tuple[Any, ...] | None = None, ranks: tuple[int, ...] | None = None
) -> Places:
    inputs = tuple(f"x{i}" for i in range(len(parts)))
    return elementwise(Node("y", op, inputs), parts, ranks or (2,) * len(parts), numbers or (None,) * len(parts))


@pytest.mark.parametrize(
    ("op", "parts", "behind"),
    [
        ("mul", (ROW, ANY), 0),  # whatever 0 is multiplied by
        ("add", (ROW, ANY), None),
        ("add", (ROW, ROW), 0),
        ("neg", (Places({1: 3}),), -3),
        ("exp", (ANY,), None),
        ("logical_and", (Places({1: False}), ANY), False),
        ("logical_or", (Places({1: True}), ANY), True),
        ("where", (Places({1: True}), Places({1: 5}), ANY), 5),
        ("where", (Places({1: False}), Places({1: 5}), ANY), None),
        ("add", (Places({1: -1e9}), ANY), -1e9),  # a score so low that a softmax takes nothing from it
        ("zeros_like", (ANY,), 0),
        ("ones_like", (ANY,), 1),
    ],
)
def test_the_number_behind_the_end(op: str, parts: tuple[Places, ...], behind: Any) -> None:
    found = through(op, *parts)
    assert set(found.axes) == {1}
    assert found.off(1) == behind


def test_broadcast_axes_count_from_the_end() -> None:
    found = through("mul", Places({1: 0}), WHOLE, ranks=(2, 3))
    assert set(found.axes) == {2}


def test_a_literal_is_the_same_everywhere() -> None:
    assert through("add", ROW, WHOLE, numbers=(None, 2)).off(1) == 2
    assert through("equal", ROW, WHOLE, numbers=(None, 0)).off(1) is True


def test_a_mask_is_told_from_its_padding() -> None:
    marked = Places({1: 0}, on=Marked(0))
    node = Node("y", "not_equal", ("x", 0))
    found = elementwise(node, (marked, WHOLE), (2, 0), (None, 0))
    assert (found.off(1), found.on) == (False, True)


def test_low_scores_before_the_end_are_remembered() -> None:
    chosen = elementwise(Node("y", "where", ("c", -1e9, "x")), (ANY, WHOLE, ANY), (2, 0, 2), (None, -1e9, None))
    assert chosen.low
    assert not through("mul", ROW, ROW).low
    assert through("mul", Places({1: 0}, low=True), ROW).low
