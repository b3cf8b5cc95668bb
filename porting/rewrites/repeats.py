"""Identities of repeats: each element of an axis several times, as tf.repeat and Keras write it, is one op."""

from __future__ import annotations

from typing import Any

from porting.lifting.integers import Integers
from porting.lifting.patterns import Any_, Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Node

_X = Any_("x")


@rewrite("", Apply("reshape", Apply("tile", Apply("unsqueeze", _X, name="apart"), name="tile")), forward=True)
def repeated(view: View, root: Node, match: Match) -> None:
    """Repeats each element of an axis, as tf.repeat writes it, at fixed and at open sizes."""
    rank, axis = view.rank(match["x"]), view.nodes[match["apart"]].attrs["axis"]
    times, sizes = view.nodes[match["tile"]].inputs[1:], root.inputs[1:]
    if rank is None or len(sizes) != rank:
        raise Refusal("its rank is not known, or changes")
    axis = axis % (rank + 1) - 1
    count = times[axis + 1]
    if axis < 0 or not isinstance(count, int) or any(n != 1 for at, n in enumerate(times) if at != axis + 1):
        raise Refusal("it is not repeated along the new axis alone")
    if not all(_becomes(view, root, match["x"], at, count if at == axis else 1) for at in range(rank)):
        raise Refusal("the new axis is not merged with the one before it")
    _write(view, root, match["x"], count, axis)


@rewrite("", Apply("concat", Any_("first")))
def repeated_by_parts(view: View, root: Node, match: Match) -> None:
    """Splits an axis into its elements and joins each several times, as tf_keras does at fixed sizes."""
    parts = view.node(match["first"])
    if parts is None or parts.op != "chunk":
        raise Refusal("not the parts of one value")
    x, num = str(parts.inputs[0]), parts.attrs["num"]
    shape, count = view.shape(x), len(root.inputs) // num
    if shape is None:
        raise Refusal("its rank is not known")
    axis = root.attrs["axis"] % len(shape)
    if axis != parts.attrs["axis"] % len(shape) or shape[axis] != num:
        raise Refusal("its parts are not the elements of the axis")
    if root.inputs != tuple(f"{parts.name}:{part}" for part in range(num) for _ in range(count)):
        raise Refusal("its parts are not each repeated as often, one after the other")
    _write(view, root, x, count, axis)


_COUNTS = Any_("counts")
_MOST = Apply("maximum", 0, Apply("reduce_max", _COUNTS, axes=(0,), keepdim=False))
_MASK = Apply("less", Apply("arange", 0, Apply("item", _MOST), 1), Apply("unsqueeze", _COUNTS))
_TIMES = Apply("stack", 1, _MOST)
_GRID = Apply("tile", Apply("unsqueeze", _X, axis=1), Apply("item", _TIMES, index=0), Apply("item", _TIMES, index=1))
_PLACES = Apply("squeeze", Apply("where_true", Apply("reshape", _MASK, -1)))
_ALL = Apply("size_mul", Apply("size", _GRID), Apply("size", _GRID))


@rewrite("", Apply("gather", Apply("reshape", _GRID, _ALL), Apply("in_range", _PLACES, _ALL)), forward=True)
def repeated_by_counts(view: View, root: Node, match: Match) -> None:
    """Repeats each element as often as its count says: tf.repeat tiles all as often as the largest, and takes what a mask keeps."""
    x, counts, integers = str(match["x"]), str(match["counts"]), Integers(view)
    if view.rank(x) != 1 or view.rank(counts) != 1 or view.rank(root.inputs[0]) != 1:
        raise Refusal("it is not a vector that is repeated by a vector")
    if integers.length(x) != integers.length(counts):
        raise Refusal("its counts are not known to be as many as what they repeat")
    view.rewrite(root, "repeat_rows", x, counts)


def _write(view: View, root: Node, x: str, count: int, axis: int) -> None:
    if view.dtype(x) in (None, "string"):
        raise Refusal("it does not repeat numbers")
    view.rewrite(root, "repeat_each", x, count=count, axis=axis)


def _becomes(view: View, root: Node, x: str, axis: int, count: int) -> bool:
    """Whether an axis of `root` is known to be `count` times as long as that of `x`."""
    before, after = view.shape(x), view.shape(root.name)
    if count == 1 and before and after and before[axis] is not None and before[axis] == after[axis]:
        return True
    return is_multiple(view, root.inputs[1 + axis], x, axis, count)


def is_multiple(view: View, size: Any, x: str, axis: int, count: int) -> bool:
    """Whether `size` is `count` times that of an axis of `x`."""
    shape = view.shape(x) or ()
    if isinstance(size, int):
        return isinstance(shape[axis], int) and size == shape[axis] * count
    node = view.node(size)
    if node is None:
        return False
    if count != 1:
        return (
            node.op == "size_mul"
            and count in node.inputs
            and any(is_multiple(view, item, x, axis, 1) for item in node.inputs if item != count)
        )
    if node.op == "size_mul":  # of an axis that was repeated before
        made = view.node(x)
        return (
            made is not None
            and made.op == "repeat_each"
            and made.attrs["axis"] == axis
            and is_multiple(view, size, str(made.inputs[0]), axis, made.attrs["count"])
        )
    if node.op != "size":
        return False
    other = str(node.inputs[0])
    return node.attrs["axis"] == axis and (other == x or _same_axis(view, other, x, axis))


def _same_axis(view: View, other: str, x: str, axis: int) -> bool:
    """Whether an axis of `x` is that of `other`, of which `x` repeats other axes."""
    made = view.node(x)
    while made is not None and made.op == "repeat_each" and made.attrs["axis"] != axis:
        x = str(made.inputs[0])
        if x == other:
            return True
        made = view.node(x)
    return False
