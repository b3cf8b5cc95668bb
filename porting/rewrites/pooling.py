"""MaskedAverage and masked sums of rows: one matmul, without materializing the masked rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, zero
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X, _MASK = Any_("x"), Any_("mask")
_COLUMN = Apply("unsqueeze", _MASK, axis=lambda axis: axis in (2, -1))
_MASKED = Apply("where", _COLUMN, _X, 0.0)


def _is_middle(axes: Any) -> bool:
    return axes is not None and tuple(axes) in ((1,), (-2,))


@rewrite("weighted_sum", Apply("reduce_sum", _MASKED | _X * _COLUMN, axes=_is_middle, keepdim=zero))
def weighted_sum(view: View, root: Node, match: Match) -> None:
    """`sum(where(mask, x, 0))` or `sum(x * weights)` over the middle axis of `[n, length, dim]`."""
    x, mask = match["x"], match["mask"]
    if view.rank(x) != 3 or view.rank(mask) != 2 or view.dtype(x) not in FLOATS:
        raise Refusal("its rows are not known to be floats [n, length, dim] under a mask [n, length]")
    shape, rows = view.shape(x), view.shape(mask)
    if shape is None or rows is None or shape[:2] != rows:
        raise Refusal(f"its rows have the shape {shape}, its mask {rows}")
    if view.dtype(mask) == "bool" and not _finite(view, x):
        raise Refusal("its rows are not known to be finite: 0 times infinity is not 0")
    view.rewrite(root, "weighted_sum", x, mask)


def _finite(view: View, x: str) -> bool:
    """Whether `x` is gathered from a table with only finite values."""
    node = view.node(x)
    if node is None or view.module_of(node, "Embedding") is None:
        return False
    table = view.store[f"{node.attrs['module']}.weight"]
    return isinstance(table, Tensor) and bool(table.isfinite().all())


# -- the average --------------------------------------------------------------------------------------------------------

_ROWS_OF_MASK = Any_("row")
_COLUMN_OF_MASK = Apply("unsqueeze", _ROWS_OF_MASK, axis=lambda axis: axis in (2, -1))
_WEIGHTS = _COLUMN_OF_MASK | Apply("cast", _COLUMN_OF_MASK)
_COUNT = (
    Apply("reduce_sum", _WEIGHTS, axes=_is_middle, keepdim=zero)
    | Apply("reduce_sum", _ROWS_OF_MASK, axes=lambda axes: tuple(axes or ()) in ((1,), (-1,)), keepdim=bool)
    | Apply(
        "reduce_sum", Apply("cast", _ROWS_OF_MASK), axes=lambda axes: tuple(axes or ()) in ((1,), (-1,)), keepdim=bool
    )
)
_DIVISOR = _COUNT | Apply("maximum", _COUNT, Number(name="floor"))
_TOTAL = Apply("weighted_sum", _X, _MASK) | Apply("reduce_sum", _MASKED, axes=_is_middle, keepdim=zero, name="selected")


def _quotient(total: Pattern) -> Pattern:
    return total / _DIVISOR | Apply("div_no_nan", total, _DIVISOR, name="no_nan")


@rewrite("MaskedAverage", _quotient(_TOTAL))
def masked_average(view: View, root: Node, match: Match) -> None:
    """A masked sum of rows divided by the number of unmasked ones, or a weighted one divided by the sum of weights."""
    x, mask = match["x"], _as_mask(view, match["mask"])
    floor = float(match.get("floor") or 0.0)
    if _as_mask(view, match["row"]) != mask:
        raise Refusal("what it divides by is not the sum of its own mask")
    if (
        view.rank(x) != 3
        or view.rank(mask) != 2
        or view.dtype(x) not in FLOATS
        or view.dtype(root.name) != view.dtype(x)
    ):
        raise Refusal("its rows are not known to be floats [n, length, dim] under a mask [n, length]")
    if floor < 0.0:
        raise Refusal(f"its divisor is at least {floor}, which is negative")
    if view.dtype(mask) not in (view.dtype(x), "bool"):
        raise Refusal(f"its mask is {view.dtype(mask)} and its rows {view.dtype(x)}")
    args = {"floor": floor} if floor else {}
    args |= {"zero_if_empty": True} if match.get("no_nan") else {}
    args |= {"finite": False} if match.get("selected") else {}
    view.module(root, "MaskedAverage", view.scope(root, "masked_average"), args, x, mask)


def _as_mask(view: View, ref: str) -> str:
    """The mask itself of a mask that was cast to numbers."""
    node = view.node(ref)
    cast = node is not None and node.op == "cast" and view.dtype(node.inputs[0]) == "bool"
    return str(node.inputs[0]) if node is not None and cast else ref
