"""Pools: maxima and averages of windows, and of whole sequences, images and volumes."""

from __future__ import annotations

from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X = Any_("x")


@rewrite("MaxPool", Apply("max_pool", _X))
def max_pool(view: View, root: Node, match: Match) -> str:
    """The maximum of each window of floats."""
    return _lift(view, root, match["x"], "MaxPool", "max_pool")


@rewrite("AvgPool", Apply("avg_pool", _X))
def avg_pool(view: View, root: Node, match: Match) -> str:
    """The average of each window, without its padding."""
    return _lift(view, root, match["x"], "AvgPool", "avg_pool")


def _lift(view: View, root: Node, x: str, kind: str, word: str) -> str:
    if view.dtype(x) not in FLOATS:
        raise Refusal(f"it pools {view.dtype(x) or 'values of unknown dtype'}, and PyTorch's pools take floats")
    attrs = root.attrs
    args: dict[str, Any] = {"kernel_size": attrs["size"], "stride": attrs["strides"], "padding": attrs["padding"]}
    args |= {} if attrs["channels_last"] else {"channels_last": False}
    kind, word = (f"{part}{len(attrs['size'])}d" for part in (kind, word))
    view.module(root, kind, view.scope(root, word), args, x)
    return kind


@rewrite("GlobalAveragePooling", Apply("reduce_mean", _X))
def global_average(view: View, root: Node, match: Match) -> None:
    """`mean(x)` over all axes between the first and the last, or after the second."""
    _lift_global(view, root, match["x"], "GlobalAveragePooling", "global_average_pooling")


@rewrite("GlobalMaxPooling", Apply("reduce_max", _X))
def global_maximum(view: View, root: Node, match: Match) -> None:
    """`max(x)` over all axes between the first and the last, or after the second."""
    _lift_global(view, root, match["x"], "GlobalMaxPooling", "global_max_pooling")


def _lift_global(view: View, root: Node, x: str, kind: str, word: str) -> None:
    shape, keepdim = view.shape(x), bool(root.attrs.get("keepdim"))
    if shape is None or len(shape) not in (3, 4, 5) or view.dtype(x) not in FLOATS:
        raise Refusal("its operand is not known to be floats of three to five axes")
    axes = tuple(sorted(axis % len(shape) for axis in root.attrs["axes"] or ()))
    channels_first = len(shape) > 3 and axes == tuple(range(2, len(shape)))
    if axes != tuple(range(1, len(shape) - 1)) and not channels_first:
        raise Refusal(f"it pools the axes {list(axes)} of {len(shape)}, which are not those of a space")
    if keepdim and (_is_square(view, x) or any(x in user.inputs for user in view.consumers(root.name))):
        raise Refusal("it is a mean or variance by which its operand is normalized")
    args = {"axes": axes, **({"keepdim": True} if keepdim else {})}
    view.module(root, kind, view.scope(root, word), args, x)


def _is_square(view: View, x: str) -> bool:
    node = view.node(x)
    if node is None:
        return False
    return node.op in ("square", "squared_difference") or (node.op == "mul" and node.inputs[0] == node.inputs[1])
