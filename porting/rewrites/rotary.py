"""rotate: rotary positions of queries and keys, as in Llama, Gemma and GPT-NeoX."""

from __future__ import annotations

from porting.lifting.patterns import Any_, Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X = Any_("x")
_HALVES = Apply("chunk", _X, num=2, name="halves")
_TURNED = (
    Apply("concat", Apply("neg", _HALVES, name="minus"), _HALVES, name="together")
    | Apply("join_last", Apply("stack", Apply("neg", _HALVES, name="minus"), _HALVES, axis=-2, name="together"), count=2)
    | Apply("reshape", Apply("stack", Apply("neg", _HALVES, name="minus"), _HALVES, axis=-2, name="together"), name="flat")
)  # fmt: skip


@rewrite("rotate", Apply("add", Apply("mul", _X, Any_("cos")), Apply("mul", _TURNED, Any_("sin"))))
def rotate(view: View, root: Node, match: Match) -> None:
    """`x * cos + [-b, a] * sin`, where `a` and `b` are the halves of x."""
    halves, shape = match["halves"], view.shape(match["x"])
    if shape is None or view.dtype(match["x"]) not in FLOATS:
        raise Refusal("its operand is not known to be floats of a known shape")
    rank, together = len(shape), view.nodes[match["together"]]
    axes = {view.nodes[halves].attrs["axis"] % rank}
    axes |= {together.attrs["axis"] % rank} if together.op == "concat" else set()
    if axes != {rank - 1} or not isinstance(shape[-1], int) or shape[-1] % 2:
        raise Refusal("it does not rotate the halves of the last axis")
    if view.nodes[match["minus"]].inputs != (f"{halves}:1",) or together.inputs[1] != f"{halves}:0":
        raise Refusal("it does not negate the second half and put it first")
    if match.get("flat") is not None and view.shape(match["flat"]) != shape:
        raise Refusal("its halves are not concatenated again")
    view.rewrite(root, "rotate", match["x"], match["cos"], match["sin"])
