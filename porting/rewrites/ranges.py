"""Ids that cannot leave their range: what a lookup, a hash or a bucket gives is known beforehand, so that checks of it go.

The ids of an Embedding that may be negative (Keras 3 counts those from the end of the table) are wrapped by one op.
"""

from __future__ import annotations

from typing import Any

from porting.lift import Refusal, View, rewrite
from porting.patterns import Any_, Apply, Match, Number
from torch_towers.graph import ModuleSpec, Node

_IDS = Any_("ids")


@rewrite("", Apply("where", Apply("less", _IDS, 0), _IDS + Number(name="size"), _IDS))
def wrapped(view: View, root: Node, match: Match) -> None:
    """`where(ids < 0, ids + size, ids)` is `ids` where they cannot be negative, and `wrap_negative(ids)` elsewhere."""
    if view.dtype(match["ids"]) not in ("int32", "int64") or view.shape(root.name) != view.shape(match["ids"]):
        raise Refusal("its ids are not known to be integers of the result's shape")
    bounds = _bounds(view, match["ids"])
    if bounds is not None and bounds[0] >= 0:
        view.alias(root, match["ids"])
    else:
        view.rewrite(root, "wrap_negative", match["ids"], size=int(match["size"]))


@rewrite("", Apply("in_range", _IDS, Number(name="limit")))
def in_range(view: View, root: Node, match: Match) -> None:
    """A check that cannot fail is no check."""
    bounds = _bounds(view, match["ids"])
    if bounds is None or bounds[0] < 0 or bounds[1] >= match["limit"]:
        raise Refusal("its ids may leave the range")
    view.alias(root, match["ids"])


_KEEPS_VALUES = frozenset({"reshape", "squeeze", "unsqueeze", "transpose", "slice", "select"})
"""Ops whose results are among their first operand's values."""


def _bounds(view: View, ref: str) -> tuple[int, int] | None:
    """The least and the greatest id that `ref` can hold; None where that is not known."""
    node = view.node(ref)
    while node is not None and node.op in _KEEPS_VALUES:
        node = view.node(node.inputs[0])
    if node is None or node.op != "module":
        return None
    spec = view.modules[str(node.attrs["module"])]
    if spec.type in ("StringLookup", "IntegerLookup") or (
        spec.type == "TextVectorization" and spec.args["output_mode"] == "int"
    ):
        return _ids_of_vocabulary(view, spec)
    if spec.type == "Hashing":
        return 0, int(spec.args["num_bins"]) - 1
    return (0, len(spec.args["boundaries"])) if spec.type == "Discretization" else None


def _ids_of_vocabulary(view: View, spec: ModuleSpec) -> tuple[int, int]:
    args: dict[str, Any] = dict(spec.args)
    first, size = int(args["first_id"]), len(view.store[args["vocabulary"]])
    ids = [int(args["oov_id"]), int(args["oov_id"]) + max(int(args.get("oov_buckets", 0)) - 1, 0)]
    ids += [first, first + size - 1] if size else []
    ids += [int(args["mask_id"])] if args.get("mask_token") is not None else []
    ids += [int(args["pad_id"])] if spec.type == "TextVectorization" else []
    return min(ids), max(ids)
