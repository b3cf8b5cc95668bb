"""Removes range checks and casts of ids that provably stay in range: results of lookups, hashes, buckets and tokenizers
have known bounds.

Ids of an Embedding that may be negative (Keras 3 counts those from the end of the table) are wrapped by one op.
"""

from __future__ import annotations

from porting.lifting.integers import bounds_of, limits_of
from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import TORCH_DTYPES
from torch_towers.graph.graph import Node, node_of

_IDS = Any_("ids")
_INTEGERS = ("int32", "int64")


@rewrite("", Apply("where", Apply("less", _IDS, 0), _IDS + Number(name="size"), _IDS))
def wrapped(view: View, root: Node, match: Match) -> None:
    """`where(ids < 0, ids + size, ids)` is `ids` if they cannot be negative, else `wrap_negative(ids)`."""
    if view.dtype(match["ids"]) not in _INTEGERS or view.shape(root.name) != view.shape(match["ids"]):
        raise Refusal("its ids are not known to be integers of the result's shape")
    bounds = bounds_of(view, match["ids"])
    if bounds is not None and bounds[0] >= 0:
        view.alias(root, match["ids"])
    else:
        view.rewrite(root, "wrap_negative", match["ids"], size=int(match["size"]))


@rewrite("", Apply("in_range", _IDS, Number(name="limit")))
def in_range(view: View, root: Node, match: Match) -> None:
    """Removes a check that cannot fail."""
    bounds = bounds_of(view, match["ids"])
    if bounds is None or bounds[0] < 0 or bounds[1] >= match["limit"]:
        raise Refusal("its ids may leave the range")
    view.alias(root, match["ids"])


# -- casts and casts back
# -------------------------------------------------------------------------------------------------

_THERE = Apply("cast", _IDS, name="there")


@rewrite("", Apply("cast", _THERE) | Apply("to_integer", _THERE))
def cast_back(view: View, root: Node, match: Match) -> None:
    """Casts integers to floats, or wider integers, and back: the identity if each value is represented exactly."""
    ids, dtype = match["ids"], str(root.attrs["dtype"])
    if dtype not in _INTEGERS or not _keeps(view, ids, view.dtype(match["there"])):
        raise Refusal("its ids may not fit the intermediate dtype")
    if view.dtype(ids) == dtype:
        view.alias(root, ids)
    elif _keeps(view, ids, dtype):
        view.rewrite(root, "cast", ids, dtype=dtype)
    else:
        raise Refusal("its ids may not fit their new dtype")


def _compared(op: str) -> Pattern:
    return Apply(op, _THERE, Number(name="number"))


@rewrite("", _compared("not_equal") | _compared("equal") | _compared("less") | _compared("greater"))
def compared(view: View, root: Node, match: Match) -> None:
    """Ids that are cast to floats and compared with a number, as `mask_zero` in TF-Keras does, are compared
    directly."""
    ids, value = match["ids"], float(match["number"])
    if not value.is_integer() or abs(value) >= 2**31:
        raise Refusal("it is compared with something other than a 32-bit integer")
    shape = view.shape(root.name)
    if shape is None or shape != view.shape(ids) or not _keeps(view, ids, view.dtype(match["there"])):
        raise Refusal("its ids may not fit the intermediate dtype")
    operands = (ids, int(value)) if match["there"] == node_of(root.inputs[0]) else (int(value), ids)
    view.rewrite(root, root.op, *operands)


def _keeps(view: View, ids: str, dtype: str | None) -> bool:
    """Whether `dtype` represents every possible value of `ids` exactly."""
    own = view.dtype(ids)
    if own not in _INTEGERS or dtype not in TORCH_DTYPES:
        return False
    bounds = bounds_of(view, ids) or limits_of(own)
    return limits_of(dtype)[0] <= bounds[0] and bounds[1] <= limits_of(dtype)[1]
