"""nn.Embedding: rows of a weight, gathered by ids."""

from __future__ import annotations

from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Refusal, Weight, zero
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_ROWS = Apply("gather", Weight("table"), Any_("ids"), axis=zero, batch_dims=zero)


@rewrite("Embedding", _ROWS)
def embedding(view: View, root: Node, match: Match) -> None:
    """`table[ids]`. A table with several gathers or other users stays one weight: its layout does not change."""
    table, ids = match["table"], match["ids"]
    shape = view.shape(table)
    if shape is None or len(shape) != 2 or view.dtype(table) not in FLOATS:
        raise Refusal(f"the weight {table!r} is not a float matrix, so it stays a gather")
    if view.dtype(ids) not in ("int32", "int64"):
        raise Refusal(f"the ids are {view.dtype(ids) or 'of unknown dtype'}, and nn.Embedding takes int32 and int64")
    args = {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    view.layer(root, "Embedding", args, ids, weights={"weight": table})


def picked_rows(view: View, ref: Any) -> tuple[str, str]:
    """`x` and `ids` of `x[ids]`, ids that are checked too."""
    node = view.node(ref)
    if node is None or node.op != "gather" or node.attrs.get("axis") or node.attrs.get("batch_dims"):
        raise Refusal("what is looked up are not rows that ids pick")
    return node.inputs[0], unchecked(view, node.inputs[1])[0]  # type: ignore[return-value,arg-type]


def unchecked(view: View, ids: str) -> tuple[str, Any]:
    """What `in_range` checks, and its limit; None where nothing is checked."""
    node = view.node(ids)
    return (node.inputs[0], node.inputs[1]) if node is not None and node.op == "in_range" else (ids, None)  # type: ignore[return-value]
