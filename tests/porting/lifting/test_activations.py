"""The formula of every activation that a layer takes by name, as TensorFlow's graphs have it, and near misses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from porting.conversion.emitter import Emitter
from porting.lifting.activations import FORMULAS, Activation
from porting.lifting.patterns import Any_, Match
from porting.lifting.view import View
from torch_towers.graph.graph import TensorSpec
from torch_towers.layers.activations import activation
from torch_towers.program.program import Program

WRITTEN: dict[str, Callable[[Any, Any], Any]] = {
    **{
        name: lambda t, x, name=name: getattr(t, name)(x)
        for name in ("sigmoid", "tanh", "relu", "relu6", "elu", "selu", "softplus", "softsign")
    },
    "silu": lambda t, x: t.mul(x, t.sigmoid(x)),
    "clipped_line": lambda t, x: t.maximum(t.minimum(t.add(t.mul(x, 0.2), 0.5), 1.0), 0.0),
    "hard_sigmoid": lambda t, x: t.mul(t.relu6(t.add(x, 3.0)), 1 / 6),
    "linear": lambda t, x: x,
}


def found(write: Callable[[Any, Any], Any]) -> tuple[Match, Program]:
    """The first activation of `2 x` that is found, and the ops that were written."""
    t = Emitter([TensorSpec("x", "float32", ("batch", 4))])
    doubled = t.mul(t.value("x", "float32", ("batch", 4)), 2.0)
    graph = t.graph({"out": write(t, doubled)})
    view = View(graph, t.store, t.known)
    match = next(Activation("kind", Any_("of")).find(view, graph.outputs["out"], Match()))
    return match, Program(graph, t.store)


@pytest.mark.parametrize("name", FORMULAS)
def test_each_is_found_and_computed(name: str) -> None:
    match, program = found(WRITTEN[name])
    assert match["kind"] == name
    x = torch.linspace(-5.0, 5.0, 16).reshape(4, 4)
    ours = activation(name, match.get("slope") or 0.0)(2.0 * x)
    torch.testing.assert_close(ours, program(x=x)["out"], rtol=0, atol=1e-6)  # silu is one op here and two there


def test_near_misses_are_not_activations() -> None:
    assert found(lambda t, x: t.maximum(t.minimum(t.add(t.mul(x, 0.2), 0.4), 1.0), 0.0))[0]["kind"] == "linear"
    assert found(lambda t, x: t.mul(t.relu6(t.add(x, 2.0)), 0.2))[0]["kind"] == "linear"
    assert found(lambda t, x: t.relu(x, no_nan=True))[0]["kind"] == "linear"


def test_one_slope_for_both() -> None:
    """Two activations of one layer have one argument for their slope."""
    formula = Activation("inner", Any_("x"))

    def write(t: Any, x: Any) -> Any:
        return t.maximum(t.minimum(t.add(t.mul(WRITTEN["hard_sigmoid"](t, x), 0.2), 0.5), 1.0), 0.0)

    t = Emitter([TensorSpec("x", "float32", ("batch", 4))])
    graph = t.graph({"out": write(t, t.value("x", "float32", ("batch", 4)))})
    view = View(graph, t.store, t.known)
    kinds = [
        (match["outer"], match["inner"])
        for match in Activation("outer", formula).find(view, graph.outputs["out"], Match())
    ]
    assert ("clipped_line", "hard_sigmoid") not in kinds
    assert ("clipped_line", "linear") in kinds
