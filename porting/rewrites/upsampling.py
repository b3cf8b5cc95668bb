"""Upsample: sequences, images and volumes with a multiple of their pixels."""

from __future__ import annotations

from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from porting.rewrites.repeats import is_multiple
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X = Any_("x")


@rewrite("Upsample", Apply("repeat_each", _X))
def repeated(view: View, root: Node, match: Match) -> None:
    """Each pixel repeated along one axis of the space after the other."""
    counts: dict[int, int] = {}
    node, x = root, root.name
    while node.op == "repeat_each" and node.attrs["axis"] not in counts:
        if node is not root and (len(view.consumers(node.name)) > 1 or view.is_output(node.name)):
            break
        counts[node.attrs["axis"]], x = node.attrs["count"], str(node.inputs[0])
        before = view.node(x)
        if before is None:
            break
        node = before
    rank = view.rank(x)
    if rank is None or view.dtype(x) not in FLOATS or set(counts) != set(range(1, rank - 1)):
        raise Refusal("its axes are not those of a space")
    _lift(view, root, x, tuple(counts[axis] for axis in sorted(counts)), "nearest")


_NEAREST = Apply("resize_nearest", _X, align_corners=False, half_pixel_centers=True)


@rewrite("Upsample", _NEAREST | Apply("resize_bilinear", _X, align_corners=False, half_pixel_centers=True))
def resized(view: View, root: Node, match: Match) -> None:
    """Images resized to a multiple of their height and width, to the nearest or between the centres of pixels."""
    x = match["x"]
    factors = tuple(_factor(view, size, x, axis) for axis, size in enumerate(root.inputs[1:3], 1))
    if None in factors or view.dtype(x) not in FLOATS:
        raise Refusal("its size is not a multiple of that of its input")
    _lift(view, root, x, factors, "nearest" if root.op == "resize_nearest" else "bilinear")


def _lift(view: View, root: Node, x: str, factors: tuple[Any, ...], mode: str) -> None:
    view.module(root, "Upsample", view.scope(root, "upsample"), {"scale_factor": factors, "mode": mode}, x)


def _factor(view: View, size: Any, x: str, axis: int) -> int | None:
    """How many times the size of an axis of `x` another size is, if that is a fixed whole number."""
    own = (view.shape(x) or ())[axis]
    if isinstance(size, int) and isinstance(own, int):
        return size // own if own and size % own == 0 else None
    node = view.node(size)
    if node is None or node.op != "size_mul":
        return None
    count = next((item for item in node.inputs if isinstance(item, int)), None)
    return count if any(is_multiple(view, item, x, axis, 1) for item in node.inputs) else None
