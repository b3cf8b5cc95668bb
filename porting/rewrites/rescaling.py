"""Rescaling: pixels brought to another range before anything else."""

from __future__ import annotations

import math

from porting.lifting.patterns import Any_, Apply, Match, Number, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_SCALED = Apply("mul", Any_("x"), Number(name="scale"))
_MOVES = frozenset(
    """cast reshape unsqueeze squeeze transpose slice flip pad resize_bilinear resize_nearest resize_bicubic resize_area
    scale_and_translate""".split()  # noqa: SIM905
)


@rewrite("Rescaling", _SCALED + Number(name="offset"))
def shifted(view: View, root: Node, match: Match) -> None:
    """`x * scale + offset` of images of an input."""
    _lift(view, root, match["x"], float(match["scale"]), float(match["offset"]))


@rewrite("Rescaling", (Any_("x") - Number(name="centre")) * Number(name="scale"))
def centred(view: View, root: Node, match: Match) -> None:
    """`(x - 0.5) * 2`, to the bit `x * 2 - 1` if the scale is a power of two, as in the Inception of TF-Slim."""
    scale, centre = float(match["scale"]), float(match["centre"])
    if abs(math.frexp(scale)[0]) != 0.5:
        raise Refusal(f"its scale {scale:g} is no power of two, so `x * scale + offset` rounds otherwise")
    _lift(view, root, match["x"], scale, -centre * scale)


@rewrite("Rescaling", _SCALED)
def scaled(view: View, root: Node, match: Match) -> None:
    """`x * scale` of images of an input."""
    _lift(view, root, match["x"], float(match["scale"]), 0.0)


def _lift(view: View, root: Node, x: str, scale: float, offset: float) -> None:
    if view.dtype(x) not in FLOATS or view.rank(x) not in (4, 5):
        raise Refusal("it does not scale floats of images")
    if not _is_input(view, x):
        raise Refusal("what it scales is computed, and not the pixels of an input")
    args = {"scale": scale, "offset": offset} if offset else {"scale": scale}
    view.module(root, "Rescaling", view.scope(root, "rescaling"), args, x)


def _is_input(view: View, ref: str) -> bool:
    """Whether a value is an input of the graph, at most moved or resized."""
    while (node := view.node(ref)) is not None and node.op in _MOVES and isinstance(node.inputs[0], str):
        ref = node.inputs[0]
    return node is None
