"""DotInteraction: the dot products of every two features, as in DLRM."""

from __future__ import annotations

from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X, _ONES = Any_("x"), Number(1.0)
_PRODUCTS = Apply("matmul", _X, Apply("matrix_transpose", _X), name="products")
_ABOVE = Apply("band_part", _ONES, lower=0, upper=-1, name="above")
_BELOW = Apply("band_part", _ONES, lower=-1, upper=0, name="below")


def _selected(mask: Pattern) -> Pattern:
    """tf.boolean_mask of the products."""
    places = Apply("squeeze", Apply("where_true", Apply("reshape", mask, -1)))
    return Apply("gather", Apply("reshape", _PRODUCTS), Apply("in_range", places), axis=0, batch_dims=0)


def _zeros_where(mask: Pattern) -> Pattern:
    return Apply("where", Apply("cast", mask), Number(0.0), _PRODUCTS)


@rewrite("DotInteraction", Apply("reshape", _selected(_ONES - _ABOVE) | _selected(_BELOW)))
def pairs(view: View, root: Node, match: Match) -> None:
    """The products below the diagonal of `features @ features.T`, with and without it."""
    count = _count(view, match)
    found = count * (count + 1) // 2 if match.get("below") else count * (count - 1) // 2
    if len(root.inputs) != 3 or root.inputs[2] != found:
        raise Refusal(f"its rows are not of the {found} pairs of {count} features")
    _lift(view, root, match, {"self_interaction": bool(match.get("below"))}, found)


@rewrite("DotInteraction", Apply("reshape", _zeros_where(_ABOVE) | _zeros_where(_ONES - _BELOW)))
def matrix(view: View, root: Node, match: Match) -> None:
    """All products in a row, with zeros above the diagonal."""
    count = _count(view, match)
    if (view.shape(root.name) or ())[1:] != (count * count,):
        raise Refusal(f"its rows are not of all {count * count} products")
    args = {"self_interaction": bool(match.get("below")), "skip_gather": True}
    _lift(view, root, match, args, count * count)


def _count(view: View, match: Match) -> int:
    """The number of features."""
    shape = view.shape(match["products"])
    mask = view.shape(match.get("above") or match["below"])
    if shape is None or len(shape) != 3 or not isinstance(shape[1], int) or mask != shape:
        raise Refusal("it does not multiply a fixed number of features for each row")
    return shape[1]


def _lift(view: View, root: Node, match: Match, args: dict[str, Any], size: int) -> None:
    x = match["x"]
    if view.dtype(x) not in FLOATS:
        raise Refusal("its features are not floats")
    rows = (view.shape(x) or (None,))[0]
    name = view.scope(root, "dot_interaction")
    view.module(root, "DotInteraction", name, args, *(_features(view, x) or (x,)))
    view.know(root, view.dtype(x), (rows, size))


def _features(view: View, x: str) -> tuple[Any, ...]:
    """The vectors that are stacked in `x`, if each is a value of its own."""
    shape, node = view.shape(x) or (), view.node(x)
    if node is None or len(shape) != 3 or not isinstance(shape[1], int) or shape[1] < 2:
        return ()
    if node.op == "stack" and node.attrs["axis"] in (1, -2):
        return node.inputs
    joined = view.node(node.inputs[0]) if node.op == "reshape" else None
    if joined is None or joined.op != "concat" or joined.attrs["axis"] not in (1, -1):
        return ()
    return joined.inputs if all((view.shape(each) or ())[1:] == shape[2:] for each in joined.inputs) else ()
