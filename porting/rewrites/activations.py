"""Activations written out as formulas: each becomes one op of `torch_towers.ops.activations`."""

from __future__ import annotations

from typing import Any

from porting.lifting.activations import HARD_SIGMOID, WRITTEN_OUT
from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X = Any_("x")
_LINE = _X * Number(name="slope") + Number(name="offset")


def _becomes(op: str, pattern: Pattern, **attrs: Any) -> None:
    """Replaces every match of `pattern` by `op(x)`; attributes given as pattern names take their bindings."""

    @rewrite(op, pattern)
    def apply(view: View, root: Node, match: Match) -> None:
        x = match["x"]
        if view.dtype(x) not in FLOATS or view.shape(x) is None or view.shape(x) != view.shape(root.name):
            raise Refusal("its operand is not known to be floats of the result's shape")
        found = {key: match[value[1:]] if str(value).startswith("?") else value for key, value in attrs.items()}
        view.rewrite(root, op, x, **found)


_becomes("gelu", WRITTEN_OUT["gelu_tanh"], form="tanh")
_becomes("gelu", WRITTEN_OUT["gelu_erf"], form="erf")
_becomes("gelu", WRITTEN_OUT["gelu"], form="erfc")
_becomes("hard_silu", WRITTEN_OUT["hard_silu"])
_becomes("hard_sigmoid", HARD_SIGMOID)
for _name in ("silu", "mish", "log_sigmoid"):
    _becomes(_name, WRITTEN_OUT[_name])
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
