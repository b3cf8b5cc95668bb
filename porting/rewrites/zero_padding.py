"""ZeroPadding: zeros around sequences, images and volumes."""

from __future__ import annotations

from porting.lifting.patterns import Any_, Apply, Match, Number, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node


@rewrite("ZeroPadding", Apply("pad", Any_("x"), Number(0.0)))
def zero_padding(view: View, root: Node, match: Match) -> None:
    """`pad(x, 0)` of all axes between the first and the last, or after the second."""
    margins, channels_last = zero_margins(view, root)
    args = {"margins": margins, **({} if channels_last else {"channels_last": False})}
    view.module(root, "ZeroPadding", view.scope(root, "zero_padding"), args, match["x"])


def zero_margins(view: View, pad: Node) -> tuple[tuple[tuple[int, int], ...], bool]:
    """The (before, after) of each spatial axis that a `pad` adds, and whether the channels come last.

    Errors: `Refusal` if it is not one of spatial axes alone.
    """
    x, sizes = str(pad.inputs[0]), pad.inputs[2:]
    if view.rank(x) not in (3, 4, 5) or view.dtype(x) not in FLOATS:
        raise Refusal("its operand is not known to be floats of three to five axes")
    if not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise Refusal("its margins are computed, or negative")
    pairs = tuple(zip(map(int, sizes[::2]), map(int, sizes[1::2]), strict=True))
    if pairs[0] == (0, 0) and pairs[-1] == (0, 0):
        return pairs[1:-1], True
    if len(pairs) > 3 and pairs[:2] == ((0, 0), (0, 0)):
        return pairs[2:], False
    raise Refusal(f"its margins {list(pairs)} are not of the axes of a space alone")
