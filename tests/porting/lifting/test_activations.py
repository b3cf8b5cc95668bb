"""The formula of every activation that a layer takes by name, as TensorFlow's graphs have it, and near misses."""

from __future__ import annotations

import math
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
        for name in (
            "sigmoid", "tanh", "relu", "relu6", "elu", "selu", "softplus", "softsign", "exp", "softmax", "log_softmax",
        )
    },
    "gelu": lambda t, x: t.mul(t.mul(0.5, x), t.erfc(t.mul(t.neg(x), math.sqrt(0.5)))),
    "gelu_erf": lambda t, x: t.mul(t.mul(0.5, x), t.add(1.0, t.erf(t.div(x, math.sqrt(2))))),
    "gelu_tanh": lambda t, x: t.mul(t.mul(0.5, x), t.add(1.0, t.tanh(t.mul(
        math.sqrt(2 / math.pi), t.add(x, t.mul(0.044715, t.pow(x, 3.0))))))),
    "hard_silu": lambda t, x: t.mul(x, t.mul(t.relu6(t.add(x, 3.0)), 1 / 6)),
    "mish": lambda t, x: t.mul(x, t.tanh(t.softplus(x))),
    "log_sigmoid": lambda t, x: t.neg(t.softplus(t.neg(x))),
    "leaky_relu": lambda t, x: t.leaky_relu(x, alpha=0.2),
    "celu": lambda t, x: t.add(t.maximum(x, 0.0), t.expm1(t.minimum(x, 0.0))),
    "hard_tanh": lambda t, x: t.maximum(t.minimum(x, 1.0), -1.0),
    "tanh_shrink": lambda t, x: t.sub(x, t.tanh(x)),
    "hard_shrink": lambda t, x: t.where(t.greater(t.abs(x), 0.5), x, t.zeros_like(x)),
    "soft_shrink": lambda t, x: t.where(
        t.greater(x, 0.5), t.sub(x, 0.5), t.where(t.less(x, -0.5), t.add(x, 0.5), t.zeros_like(x))),
    "sparse_plus": lambda t, x: t.where(
        t.less_equal(x, -1.0), t.zeros_like(x), t.where(t.less(x, 1.0), t.mul(0.25, t.square(t.add(x, 1.0))), x)),
    "sparse_sigmoid": lambda t, x: t.where(
        t.less_equal(x, -1.0), t.zeros_like(x), t.where(t.greater_equal(x, 1.0), t.ones_like(x), t.mul(0.5, t.add(x, 1.0)))),
    "squareplus": lambda t, x: t.mul(t.add(x, t.sqrt(t.add(t.square(x), 4.0))), 0.5),
    "silu": lambda t, x: t.mul(x, t.sigmoid(x)),
    "clipped_line": lambda t, x: t.maximum(t.minimum(t.add(t.mul(x, 0.2), 0.5), 1.0), 0.0),
    "hard_sigmoid": lambda t, x: t.mul(t.relu6(t.add(x, 3.0)), 1 / 6),
    "linear": lambda t, x: x,
}  # fmt: skip


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
    x = torch.linspace(-5.0, 5.0, 16).reshape(4, 4).requires_grad_()
    ours, ops = activation(name, match.get("slope") or 0.0)(2.0 * x), program(x=x)["out"]
    torch.testing.assert_close(ours, ops, rtol=0, atol=1e-6)  # silu is one op here and two there
    weights = torch.arange(16.0).reshape(4, 4) / 16
    gradients = [torch.autograd.grad(value, x, weights)[0] for value in (ours, ops)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=4e-6)  # float32 sums of some terms up to 20


def test_near_misses_are_not_activations() -> None:
    assert found(lambda t, x: t.maximum(t.minimum(t.add(t.mul(x, 0.2), 0.4), 1.0), 0.0))[0]["kind"] == "linear"
    assert found(lambda t, x: t.mul(t.relu6(t.add(x, 2.0)), 0.2))[0]["kind"] == "linear"
    assert found(lambda t, x: t.relu(x, no_nan=True))[0]["kind"] == "linear"
    assert found(lambda t, x: t.leaky_relu(x, alpha=0.3))[0]["kind"] == "linear"
    assert found(lambda t, x: t.maximum(t.minimum(x, 2.0), -1.0))[0]["kind"] == "linear"


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
