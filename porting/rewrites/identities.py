"""Identities: bit-exact equations that normalize the graph. They create no layer and are not counted."""

from __future__ import annotations

from porting.lifting.patterns import SOURCES, Any_, Apply, Match, Number, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Node, references
from torch_towers.graph.narrow import upstream

_INTEGERS = ("int32", "int64", "size")


@rewrite("", Apply("minimum", Number(name="n"), Apply("maximum", Number(name="n"), Any_("x"))))
def bound_is_fixed(view: View, root: Node, match: Match) -> None:
    """`min(n, max(n, x))` is n: tf.math.bincount writes a fixed length this way."""
    if view.dtype(root.name) not in _INTEGERS or view.is_output(root.name):
        raise Refusal("not an integer inside the graph")
    if any(user.op not in ("bincount", "ragged_bincount") for user in view.consumers(root.name)):
        raise Refusal("used by ops that may not take a literal")
    view.alias(root, int(match["n"]))


@rewrite("", Apply("minimum", Any_("n"), Apply("maximum", Any_("n"), Any_("x"))))
def bound_is_given(view: View, root: Node, match: Match) -> None:
    """The same identity with a computed n, such as the number of rows of row lengths."""
    if view.dtype(root.name) not in _INTEGERS or view.shape(root.name) != view.shape(match["n"]):
        raise Refusal("not an integer")
    view.alias(root, match["n"])


@rewrite("", Apply("mul", Number(1.0), Any_("x")))
def times_one(view: View, root: Node, match: Match) -> None:
    """`1 * x` is x; Keras writes the slope of swish this way."""
    if view.shape(root.name) is None or view.shape(root.name) != view.shape(match["x"]):
        raise Refusal("the number has more axes than the value")
    view.alias(root, match["x"])


@rewrite("", Apply("reshape", Apply("matmul", Apply("reshape", Any_("x"), name="flat"), Weight("kernel"))))
def matmul_of_rows(view: View, root: Node, match: Match) -> None:
    """Rows merged, multiplied and split again, as Dense does on rank 3 and above, are one matmul on the last axis."""
    x, flat = view.shape(match["x"]), view.shape(match["flat"])
    kernel, result = view.shape(match["kernel"]), view.shape(root.name)
    if x is None or flat is None or kernel is None or result is None or len(flat) != 2 or len(kernel) != 2:
        raise Refusal("a shape is not known")
    if x[-1] != kernel[0] or flat[1] != kernel[0] or result != (*x[:-1], kernel[1]) or None in x:
        raise Refusal("the rows are not split as they were merged")
    view.rewrite(root, "matmul", match["x"], match["kernel"])


@rewrite("", Apply("size", Any_("x")))
def size_behind_the_bias(view: View, root: Node, match: Match) -> None:
    """A size of `x` is read of `x + weight`, where the weight has no such axis: nothing then stands between a product and
    its bias."""
    axis, rank = int(root.attrs["axis"]), view.rank(match["x"]) or 0
    for user in view.consumers(match["x"]):
        others = [ref for ref in references(user.inputs) if ref != match["x"]]
        if user.op not in ("add", "bias_add") or len(others) != 1 or not _is_weight(view, others[0]):
            continue
        if (view.rank(others[0]) or rank) < rank - axis and root.name not in upstream(view.graph(), [user.name]):
            view.rewrite(root, "size", user.name, axis=axis)
            view.sort()
            return
    raise Refusal("its value has no bias")


def _is_weight(view: View, ref: str) -> bool:
    """Whether it is a weight or constant, in whatever shape."""
    node = view.node(ref)
    while node is not None and node.op in ("reshape", "squeeze", "unsqueeze"):
        node = view.node(node.inputs[0])
    return node is not None and node.op in SOURCES
