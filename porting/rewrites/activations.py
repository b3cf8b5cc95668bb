"""Activations written out as formulas: each becomes one op of `torch_towers.ops.activations`."""

from __future__ import annotations

import math
from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, Weight, square
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X = Any_("x")
_HALF_X = 0.5 * _X
_CUBE = Apply("pow", _X, 3) | _X * square(_X) | Apply("pow", _X, 3.0)
_TANH = Apply("tanh", math.sqrt(2 / math.pi) * (_X + 0.044715 * _CUBE))
_BY_ROOT_2 = _X * math.sqrt(0.5) | _X / math.sqrt(2)
_MINUS_BY_ROOT_2 = (-_X) * math.sqrt(0.5) | (-_X) / math.sqrt(2) | _X * -math.sqrt(0.5)
_HARD = Apply("relu6", _X + 3.0)
_HARD_SIGMOID = _HARD * (1 / 6) | _HARD / 6.0
_LINE = _X * Number(name="slope") + Number(name="offset")


def _halved(p: Pattern) -> Pattern:
    """`0.5 * x * p`, in every order."""
    return _HALF_X * p | _X * (0.5 * p) | 0.5 * (_X * p)


def _becomes(op: str, pattern: Pattern, **attrs: Any) -> None:
    """Replaces every match of `pattern` by `op(x)`; attributes given as pattern names take their bindings."""

    @rewrite(op, pattern)
    def apply(view: View, root: Node, match: Match) -> None:
        x = match["x"]
        if view.dtype(x) not in FLOATS or view.shape(x) is None or view.shape(x) != view.shape(root.name):
            raise Refusal("its operand is not known to be floats of the result's shape")
        found = {key: match[value[1:]] if str(value).startswith("?") else value for key, value in attrs.items()}
        view.rewrite(root, op, x, **found)


_becomes("gelu", _halved(1.0 + _TANH), form="tanh")
_becomes("gelu", _halved(1.0 + Apply("erf", _BY_ROOT_2)), form="erf")
_becomes("gelu", _halved(Apply("erfc", _MINUS_BY_ROOT_2)), form="erfc")
_becomes("hard_silu", _X * _HARD_SIGMOID)
_becomes("hard_sigmoid", _HARD_SIGMOID)
_becomes("silu", _X * Apply("sigmoid", _X))
_becomes("mish", _X * Apply("tanh", Apply("softplus", _X)))
_becomes("log_sigmoid", -Apply("softplus", -_X))
_becomes("clipped_line", Apply("maximum", Apply("minimum", _LINE, 1.0), 0.0)
         | Apply("minimum", Apply("maximum", _LINE, 0.0), 1.0), slope="?slope", offset="?offset")  # fmt: skip
_becomes("scaled_elu", Apply("where", Apply("greater", _X, 0.0), Apply("elu", _X), Number(name="alpha") * Apply("elu", _X)),
         alpha="?alpha")  # fmt: skip


@rewrite("PReLU", Apply("relu", _X) + (-Weight("alpha")) * Apply("relu", -_X))
def prelu(view: View, root: Node, match: Match) -> None:
    """`relu(x) - alpha * relu(-x)`, with one slope per feature of rank-2 inputs."""
    alpha, shape = view.shape(match["alpha"]), view.shape(match["x"])
    if alpha is None or shape is None or len(shape) != 2 or alpha != (shape[1],):
        raise Refusal(f"its slopes are {list(alpha or ())}, and nn.PReLU has one per feature of [n, features]")
    view.layer(root, "PReLU", {"num_parameters": alpha[0]}, match["x"], weights={"weight": match["alpha"]})
