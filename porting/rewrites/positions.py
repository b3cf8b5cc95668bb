"""PositionEmbedding: the first rows of a weight, one per position."""

from __future__ import annotations

from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Refusal, Size, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_TABLE, _LENGTH = Weight("table"), Size("length")
_FROM_START = Apply("slice", _TABLE, 0, _LENGTH, axis=lambda axis: axis in (0, 1), step=1, name="cut")


@rewrite("", Apply("add", Any_("x"), Apply("broadcast_to", Any_("rows"), name="wide")))
def broadcast_by_the_sum(view: View, root: Node, match: Match) -> None:
    """`x + broadcast_to(rows, shape of x)` becomes `x + rows`."""
    shape = view.shape(match["x"])
    if shape is None or None in shape or view.shape(match["wide"]) != shape:
        raise Refusal("not broadcast to the shape of the other operand")
    view.rewrite(root, "add", match["x"], match["rows"])


@rewrite("PositionEmbedding", _FROM_START)
def first_rows(view: View, root: Node, match: Match) -> None:
    """`table[:length]`, where the length is the size of something. A table with other users stays one weight."""
    _lift(view, root, match, strict=False)


@rewrite("PositionEmbedding", Apply("narrow", _TABLE, 0, _LENGTH, axis=lambda axis: axis in (0, 1), name="cut"))
def first_rows_strictly(view: View, root: Node, match: Match) -> None:
    """`tf.slice(table, [0, 0], [length, -1])`, which refuses lengths beyond the table, as in KerasHub and tf-models."""
    _lift(view, root, match, strict=True)


@rewrite("PositionEmbedding", Apply("add", Any_("x"), _TABLE))
def all_rows(view: View, root: Node, match: Match) -> None:
    """`x + table`, one row per position of fixed-length texts, or per patch of an image."""
    shape, sizes = view.shape(match["x"]), view.shape(match["table"]) or ()
    places = sizes[1:] if len(sizes) == 3 and sizes[0] == 1 else sizes
    if shape is None or len(shape) != 3 or len(places) != 2 or shape[1:] != places:
        raise Refusal(f"what is added has shape {list(sizes)}: it is not one row per position of [n, length, dim]")
    args, values = _table(view, match["table"])
    node = view.before(root, "identity", match["table"], known=(view.dtype(match["table"]), places))
    view.layer(
        view.nodes[node], "PositionEmbedding", args, places[0], weights={"weight": match["table"]}, values=values
    )
    view.rewrite(root, "add", match["x"], node)


@rewrite("PositionEmbedding", Apply("unsqueeze", _TABLE, axis=0))
def normed_rows(view: View, root: Node, match: Match) -> None:
    """`norm(table)` with an axis of rows in front: the relative positions of DeBERTa, one row for each."""
    shape = view.shape(root.name)
    means = [user for user in view.consumers(root.name) if user.op == "reduce_mean"]
    last = -1 if shape is None else len(shape) - 1
    if shape is None or not means or any(tuple(mean.attrs["axes"]) not in ((-1,), (last,)) for mean in means):
        raise Refusal("its rows are not normalized, so it may be no table of positions")
    args, values = _table(view, match["table"])
    if values:
        raise Refusal("its table has an extra axis already")
    view.layer(root, "PositionEmbedding", args, shape[1], weights={"weight": match["table"]})
    view.then(root, "unsqueeze", known=(view.dtype(root.name), shape[1:]), axis=0)


def _is_added(view: View, root: Node) -> bool:
    """Whether all that reads it adds it to something, with an axis of rows in front or without."""
    users = view.consumers(root.name)
    return bool(users) and all(user.op == "add" or (user.op == "unsqueeze" and _is_added(view, user)) for user in users)


def _table(view: View, table: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of the layer, and the table as a matrix if it had an extra axis."""
    shape = view.shape(table) or ()
    matrix = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if len(matrix) != 2 or view.dtype(table) not in FLOATS:
        raise Refusal(f"the weight {table!r} is not a float matrix, so it stays a slice")
    if matrix != shape and len(view.consumers(table)) != 1:
        raise Refusal(f"the weight {table!r} has an extra axis, and other users")
    values = {"weight": view.tensor(table).reshape(matrix)} if matrix != shape else {}
    return {"num_embeddings": matrix[0], "embedding_dim": matrix[1]}, values


def _lift(view: View, root: Node, match: Match, *, strict: bool) -> None:
    table, length = match["table"], view.node(match["length"])
    args, values = _table(view, table)
    args |= {"strict": True} if strict else {}
    if view.nodes[match["cut"]].attrs["axis"] != (1 if values else 0):
        raise Refusal("it is sliced along another axis than its rows")
    fixed = isinstance(match["length"], int) and 0 <= match["length"] <= args["num_embeddings"]
    if not fixed and (length is None or length.op != "size"):
        raise Refusal("the number of rows is not the size of something, so it may be negative")
    if fixed and not _is_added(view, root):
        raise Refusal("its first rows are not added to anything, so they may be no positions")
    result = view.shape(root.name)
    view.layer(root, "PositionEmbedding", args, match["length"], weights={"weight": table}, values=values)
    if values and result is not None:  # it had a leading axis of length one, which the sum adds again
        view.then(root, "unsqueeze", known=(view.dtype(root.name), result[1:]), axis=0)
