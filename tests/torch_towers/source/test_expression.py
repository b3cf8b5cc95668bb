"""Python text that knows how tightly it binds: what it means survives, and parentheses stand only where they must."""

from __future__ import annotations

import ast
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_towers.source.expression import ATOM, PRODUCT, SUM, Expression, literal

X, TOTAL, TIMES = Expression("x"), Expression("a + b", SUM), Expression("a * b", PRODUCT)


def test_parentheses() -> None:
    assert f"{TOTAL:+} + {X:+}" == "a + b + x"
    assert f"{TOTAL:*} * {X:*}" == "(a + b) * x"
    assert f"{TIMES:*} * {TIMES:*}" == "a * b * a * b"
    assert f"{TOTAL:.}.relu()" == "(a + b).relu()"
    assert f"f({TOTAL})" == "f(a + b)"


def test_the_right_side_of_a_difference_binds_tighter() -> None:
    assert f"{TOTAL:+} - {TOTAL:+r}" == "a + b - (a + b)"
    assert f"{X:+} - {TIMES:+r}" == "x - a * b"


CONSTANTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
)


@given(CONSTANTS)
def test_a_literal_is_what_it_says(value: object) -> None:
    text = str(literal(value))
    assert text.isascii()
    assert "\n" not in text
    found = eval(text, {"__builtins__": {}, "float": float})
    assert found == value
    assert type(found) is type(value)


def test_a_literal_is_data() -> None:
    hostile = "'); __import__('os').system('x') #"
    assert ast.literal_eval(str(literal(hostile))) == hostile
    with pytest.raises(TypeError, match="no constants of type object"):
        literal(object())


def test_numbers_that_have_no_literal() -> None:
    assert str(literal(math.inf)) == 'float("inf")'
    assert str(literal(-math.inf)) == 'float("-inf")'
    assert str(literal(math.nan)) == 'float("nan")'
    assert literal(-1).level < ATOM == literal(1).level  # `-1 ** 2` is not `(-1) ** 2`
    assert literal(-0.0).level < ATOM
