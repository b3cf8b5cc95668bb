"""PositionEmbedding: the first rows of a weight, as many as there are places."""

from __future__ import annotations

from porting.lifting.patterns import Any_, Apply, Match, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_FROM_START = Apply("slice", Weight("table"), 0, Any_("length"), axis=0, step=1)


@rewrite("PositionEmbedding", _FROM_START)
def first_rows(view: View, root: Node, match: Match) -> None:
    """`table[:length]`, the length being the size of something. A table that other ops use stays one weight."""
    table, length = match["table"], view.node(match["length"])
    shape = view.shape(table)
    if shape is None or len(shape) != 2 or view.dtype(table) not in FLOATS:
        raise Refusal(f"the weight {table!r} is not a float matrix, so it stays a slice")
    if length is None or length.op != "size":
        raise Refusal("how many rows it takes is not the size of something, so that it may count from the end")
    args = {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    view.layer(root, "PositionEmbedding", args, match["length"], weights={"weight": table})
