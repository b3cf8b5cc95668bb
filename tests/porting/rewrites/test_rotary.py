"""rotate: the halves of the last axis, turned."""

from __future__ import annotations

from typing import Any

import pytest

from tests.porting.rewrites.by_hand import lifted, ops

INPUTS = dict.fromkeys(("x", "cos", "sin"), ("float32", ("n", 5, 4)))


def turned(t: Any, x: Any, cos: Any, sin: Any, *, axis: int = -1, swapped: bool = False) -> Any:
    a, b = t.chunk(x, num=2, axis=axis)
    parts = (t.neg(a), b) if swapped else (t.neg(b), a)
    return t.add(t.mul(x, cos), t.mul(t.concat(*parts, axis=axis), sin))


def test_halves_of_the_last_axis() -> None:
    assert ops(lifted(turned, INPUTS)) == ["rotate"]


@pytest.mark.parametrize(
    ("options", "why"), [({"swapped": True}, "it does not negate the second half and put it first")]
)
def test_near_misses(options: dict[str, Any], why: str) -> None:
    found = lifted(lambda t, *operands: turned(t, *operands, **options), INPUTS)
    assert "rotate" not in ops(found)
    assert why in "\n".join(found.refusals)


def test_halves_of_another_axis_stay() -> None:
    even = dict.fromkeys(INPUTS, ("float32", ("n", 4, 6)))
    found = lifted(lambda t, *operands: turned(t, *operands, axis=1), even)
    assert "rotate" not in ops(found)
    assert "it does not rotate the halves of the last axis" in "\n".join(found.refusals)
