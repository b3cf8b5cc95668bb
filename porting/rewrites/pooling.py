"""Sums of rows under a mask, as averages of embeddings begin: one product of matrices, without the masked rows between."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Refusal, zero
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
    """Whether `x` is rows of a table that is finite everywhere."""
    node = view.node(x)
    if node is None or view.module_of(node, "Embedding") is None:
        return False
    table = view.store[f"{node.attrs['module']}.weight"]
    return isinstance(table, Tensor) and bool(table.isfinite().all())
