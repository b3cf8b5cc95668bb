"""One formula matches all its spellings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from porting.conversion.emitter import Emitter
from porting.conversion.values import Constant, Value, constant
from porting.lifting.lift import lift
from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Weight, square
from porting.lifting.view import View
from torch_towers.graph.graph import TensorSpec
from torch_towers.program.program import Program

X, Y = Any_("x"), Any_("y")


def found(pattern: Pattern, write: Callable[[Any, Value, Value], Any]) -> Match | None:
    """What `pattern` finds in what `write(t, x, y)` writes."""
    t = Emitter([TensorSpec("x", "float32", ("n", 4)), TensorSpec("y", "float32", ("n", 4))])
    x, y = (t.value(spec.name, spec.dtype, spec.shape) for spec in t.inputs)
    result = write(t, x, y)
    view = View(t.graph({"out": result}), t.store, t.known)
    return next(pattern.find(view, result.ref, Match()), None)


@pytest.mark.parametrize(
    "write",
    [
        lambda t, x, y: t.sub(x, y),
        lambda t, x, y: t.add(x, t.neg(y)),
        lambda t, x, y: t.add(t.neg(y), x),
    ],
)
def test_a_difference_is_a_sum(write: Any) -> None:
    match = found(X - Y, write)
    assert match is not None and (match["x"], match["y"]) == ("x", "y")


@pytest.mark.parametrize(
    "write",
    [
        lambda t, x, y: t.sub(y, t.mul(x, t.exp(x))),
        lambda t, x, y: t.add(y, t.mul(t.neg(x), t.exp(x))),
        lambda t, x, y: t.add(t.mul(t.exp(x), t.neg(x)), y),
    ],
)
def test_the_sign_of_a_product_may_stand_at_a_factor(write: Any) -> None:
    match = found(Y - X * Apply("exp", X), write)
    assert match is not None and (match["x"], match["y"]) == ("x", "y")


@pytest.mark.parametrize(
    "three",
    [3, 3.0, constant(torch.tensor(3.0)), constant(torch.full((1, 4), 3.0))],
)
def test_a_number_is_a_literal_or_a_constant(three: Any) -> None:
    assert found(X * 3.0, lambda t, x, y: t.mul(three, x)) is not None
    assert found(X * 3.5, lambda t, x, y: t.mul(three, x)) is None
    assert found(X - 3.0, lambda t, x, y: t.sub(x, three)) is not None
    assert found(X + -3.0, lambda t, x, y: t.sub(x, three)) is not None
    match = found(X - Number(name="n"), lambda t, x, y: t.sub(x, three))
    assert match is not None and match["n"] == 3


def test_a_constant_of_several_numbers_is_none() -> None:
    several = constant(np.arange(4, dtype=np.float32))
    assert found(X * Number(name="n"), lambda t, x, y: t.mul(x, several)) is None


def test_squares() -> None:
    for write in (
        lambda t, x, y: t.square(x),
        lambda t, x, y: t.mul(x, x),
        lambda t, x, y: t.pow(x, Constant(torch.tensor(2.0))),
    ):
        assert found(square(X), write) is not None
    assert found(square(X), lambda t, x, y: t.mul(x, y)) is None, "the same name is the same value"


def test_a_weight_is_no_input() -> None:
    assert found(Apply("add", X, Weight("w")), lambda t, x, y: t.add(x, y)) is None
    assert found(Apply("add", X, Weight("w")), lambda t, x, y: t.add(x, t.parameter("w", "float32", (4,)))) is not None


def test_a_graph_of_20000_nodes_is_lifted() -> None:
    t = Emitter([TensorSpec("x", "float32", ("n", 4))])
    x = t.value("x", "float32", ("n", 4))
    for _ in range(10_000):
        x = t.mul(x, t.sigmoid(x))
    graph = t.graph({"out": x})
    lifted = lift(graph, t.store, t.known)
    assert lifted.counts == {"silu": 10_000} and len(lifted.graph.nodes) == 10_000
    value = torch.full((1, 4), 1e4)
    with torch.no_grad():
        expected, ours = Program(graph, {})(x=value)["out"], Program(lifted.graph, {})(x=value)["out"]
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("dtype, close, matches", [
    ("float64", 1e-8, False), ("float64", 2.0**-53, True), ("float32", 1e-8, True), ("float32", 1e-6, False),
    ("float16", 1e-4, True), ("float16", 1e-2, False), ("bfloat16", 1e-3, True), ("bfloat16", 1e-1, False),
])  # fmt: skip
def test_constants_are_compared_at_the_graphs_precision(dtype: str, close: float, matches: bool) -> None:
    t = Emitter([TensorSpec("x", dtype, ("n", 4))])
    x = t.value("x", dtype, ("n", 4))
    literal = t.mul(t.sigmoid(x), math.sqrt(2) * (1 + close))
    view = View(t.graph({"out": literal}), t.store, t.known)
    pattern = Apply("sigmoid", X) * math.sqrt(2)
    assert (next(pattern.find(view, literal.ref, Match()), None) is not None) is matches
