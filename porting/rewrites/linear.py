"""nn.Linear: a matmul with a weight, and the bias added to it."""

from __future__ import annotations

from porting.lifting.patterns import Any_, Apply, Match, Refusal, Sum, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_MATMUL = Apply("matmul", Any_("x"), Weight("kernel"), name="matmul")


@rewrite("Linear", Sum(_MATMUL, Weight("bias")))
def linear_with_bias(view: View, root: Node, match: Match) -> None:
    """`x @ kernel + bias`."""
    shape, outer = view.shape(match["bias"]), (view.shape(match["kernel"]) or (None,))[-1]
    if shape != (outer,):
        raise Refusal(f"what is added has shape {list(shape or ())}, expected [{outer}]: it is not a bias")
    _lift(view, root, match, match["bias"])


@rewrite("Linear", _MATMUL)
def linear(view: View, root: Node, match: Match) -> None:
    """`x @ kernel`, without a bias, or with different biases at different uses."""
    _lift(view, root, match, None)


def _lift(view: View, root: Node, match: Match, bias: str | None) -> None:
    kernel = match["kernel"]
    shape = view.shape(kernel)
    if shape is None or len(shape) != 2 or view.dtype(kernel) not in FLOATS:
        raise Refusal(f"the weight {kernel!r} is not a float matrix")
    _check_other_uses(view, kernel, bias)
    args = {"in_features": shape[0], "out_features": shape[1], "bias": bias is not None}
    weights = {"weight": kernel} if bias is None else {"weight": kernel, "bias": bias}
    values = {"weight": view.tensor(kernel).T.contiguous()}
    view.layer(root, "Linear", args, match["x"], weights=weights, values=values)


def _check_other_uses(view: View, kernel: str, bias: str | None) -> None:
    """The kernel changes its layout, so all its users must be lifted, with the same bias."""
    for user in view.consumers(kernel):
        if user.op != "matmul" or user.inputs[1] != kernel or user.inputs[0] == kernel:
            raise Refusal(f"its kernel {kernel!r} is also used by {user.op} {user.name!r}")
        if (view.rank(user.inputs[0]) or 0) < 2:
            raise Refusal(f"the rank of the input of {user.name!r} is not known, or is less than 2")
        if bias is not None:
            sums = view.consumers(user.name)
            if len(sums) != 1 or sums[0].op != "add" or bias not in sums[0].inputs or view.is_output(user.name):
                raise Refusal(f"its kernel {kernel!r} is also used by {user.name!r}, without the same bias")
