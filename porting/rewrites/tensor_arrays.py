"""Identities of TensorFlow 1's arrays: read and written as a whole, they are lists of a tensor's rows."""

from __future__ import annotations

from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Node, node_of


@rewrite("", Apply("list_scatter", Any_("x"), Any_("places"), Any_("list")))
def rows_of_a_tensor(view: View, root: Node, match: Match) -> None:
    """All rows of a tensor, written at their places into an array of as many: the list of its rows."""
    if root.inputs[3] != 0 or not _counts(view, match["places"], _reserved(view, match["list"])):
        raise Refusal("the places are not all those of the array")
    rows, size = (view.shape(match["x"]) or (None,))[0], _reserved(view, match["list"])
    if rows is None or rows not in (size, _size_of(view, size)):
        raise Refusal("the array is not known to have as many places as there are rows")
    view.rewrite(root, "list_from_tensor", match["x"])


@rewrite("", Apply("list_gather", Any_("list"), Any_("places")))
def whole_array(view: View, root: Node, match: Match) -> None:
    """All places of an array that a loop filled: the stack of its elements."""
    loop = view.node(match["list"])
    if loop is None or loop.op != "while_loop":
        raise Refusal("it is not filled by a loop")
    reserved = _reserved(view, loop.inputs[int(match["list"].partition(":")[2] or 0)])
    if not _counts(view, match["places"], reserved):
        raise Refusal("the places are not all those of the array")
    view.rewrite(root, "list_stack", match["list"], **root.attrs)


def _reserved(view: View, items: Any) -> Any:
    """The number of places of a new array."""
    node = view.node(items)
    return None if node is None or node.op != "list_reserve" else node.inputs[0]


def _counts(view: View, places: Any, size: Any) -> bool:
    """Whether `places` counts from 0 to `size`."""
    node = view.node(places)
    return size is not None and node is not None and node.op == "arange" and node.inputs[:3] == (0, size, 1)


def _size_of(view: View, size: Any) -> Any:
    """The name of the size that a node computes."""
    node = view.node(size)
    shape = None if node is None or node.op != "size" else view.shape(node_of(node.inputs[0]))
    return None if node is None or shape is None else shape[node.attrs["axis"]]
