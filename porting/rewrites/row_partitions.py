"""Row partitions: what TensorFlow's functions on ragged tensors check again at each step, although it follows from the step before.

Row splits start with 0, ascend, and end with the number of values. A check of this is left out where an op promises it.
"""

from __future__ import annotations

from typing import Any

from porting.lifting.integers import Integers, lengths_behind, splits_behind
from porting.lifting.patterns import Any_, Apply, Match, Refusal, zero
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Node

_EXACT = ("bool", "int32", "int64", "size", "string")


@rewrite("", Apply("sub"), forward=True)
def lengths_of_splits(view: View, root: Node, match: Match) -> None:
    """The differences of splits that are sums of lengths are these lengths."""
    lengths = lengths_behind(view, splits_behind(view, root.name))
    if lengths is None:
        raise Refusal("no differences of sums of lengths")
    view.alias(root, lengths)


@rewrite("", Apply("in_range", Any_("places"), Any_("limit")), forward=True)
def places_in_range(view: View, root: Node, match: Match) -> None:
    """Removes a check of places in a vector that are counted from its length, or of splits that part it."""
    integers = Integers(view)
    end = integers.end(match["places"])
    if end is None or integers.count(match["limit"]) != end:
        raise Refusal("they may leave the range")
    view.alias(root, match["places"])


@rewrite("", Apply("broadcast_to", Any_("x")), forward=True)
def as_long_already(view: View, root: Node, match: Match) -> None:
    """A vector that is broadcast to its own length is itself."""
    integers, sizes = Integers(view), root.inputs[1:]
    if view.rank(match["x"]) != 1 or len(sizes) != 1:
        raise Refusal("no vector that stays one")
    length = integers.length(match["x"])
    if length is None or integers.count(sizes[0]) != length:
        raise Refusal("its length is not known to stay")
    view.alias(root, match["x"])


@rewrite("", Apply("gather", Any_("x"), Apply("arange", 0, Any_("count"), 1), axis=zero), forward=True)
def all_rows(view: View, root: Node, match: Match) -> None:
    """The rows of a vector at all of its places are the vector."""
    integers = Integers(view)
    length = integers.length(match["x"]) if view.rank(match["x"]) == 1 else None
    if length is None or integers.count(match["count"]) != length:
        raise Refusal("it may pick fewer rows")
    view.alias(root, match["x"])


@rewrite("", Apply("check"), forward=True)
def implied(view: View, root: Node, match: Match) -> None:
    """Removes a check that cannot fail."""
    if not _Conditions(view).holds(root.inputs[0]):
        raise Refusal("it may fail")
    view.remove(root)


class _Conditions:
    """Which conditions of a graph are known to be true."""

    def __init__(self, view: View) -> None:
        self._view, self._integers = view, Integers(view)

    def holds(self, ref: Any) -> bool:
        """Whether a condition is true in each of its elements."""
        node = self._view.node(ref)
        while node is not None and (inner := _restated(node)) is not None:
            ref, node = inner, self._view.node(inner)
        if node is None:
            return ref is True
        if node.op == "less_equal":
            return self._is_below(*node.inputs)
        if node.op == "greater_equal":
            return self._is_below(*reversed(node.inputs))
        return node.op == "equal" and self._are_equal(*node.inputs)

    def _is_below(self, least: Any, most: Any) -> bool:
        lower, upper = self._integers.bounds(least), self._integers.bounds(most)
        return lower is not None and upper is not None and lower[1] <= upper[0]

    def _are_equal(self, a: Any, b: Any) -> bool:
        if any(isinstance(item, str) and self._view.dtype(item) not in _EXACT for item in (a, b)):
            return False
        count = self._integers.count(a)
        if a == b or (count is not None and count == self._integers.count(b)):
            return True
        ours, theirs = self._integers.bounds(a), self._integers.bounds(b)
        return ours is not None and ours == theirs and ours[0] == ours[1]


def _restated(node: Node) -> Any:
    """The condition that a node says again: `all(x)`, `x == True`; else None."""
    if node.op == "reduce_all":
        return node.inputs[0]
    others = [ref for ref in node.inputs if ref is not True] if node.op == "equal" else ()
    return others[0] if len(others) == 1 else None
