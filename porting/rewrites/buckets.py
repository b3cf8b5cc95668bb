"""Hashing, Discretization, CategoryEncoding."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Number, Refusal, Source, zero
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS, dtype_name
from torch_towers.graph.graph import Node

_X = Any_("x")
_CONSTANT = frozenset({"constant"})

# -- Hashing ------------------------------------------------------------------------------------------------------------

_TEXT = Apply("as_string", _X, precision=-1, scientific=False, shortest=False, width=-1) | _X
_HASH = Apply("hash_bucket_fast", _TEXT, name="hash") | Apply("hash_bucket_strong", _TEXT, name="hash")
_MASK = Source("mask", _CONSTANT) | Number(name="mask_number")


@rewrite("Hashing", Apply("where", Apply("equal", _X, _MASK), 0, _HASH + 1) | _HASH)
def hashing(view: View, root: Node, match: Match) -> None:
    """The hash bucket of a string or integer, with a separate bucket for the mask value."""
    attrs = view.nodes[match["hash"]].attrs
    mask = _mask_value(view, match)
    if view.shape(root.name) is not None and view.shape(root.name) != view.shape(match["x"]):
        raise Refusal("its result is not known to have its input's shape")
    args: dict[str, Any] = {"num_bins": attrs["num_buckets"] if mask is None else attrs["num_buckets"] + 1}
    if "key" in attrs:
        args["salt"] = tuple(attrs["key"])
    if mask is not None:
        args["mask_value"] = mask
    view.module(root, "Hashing", view.scope(root, "hashing"), args, match["x"])


def _mask_value(view: View, match: Match) -> Any:
    if match.get("mask_number") is not None:
        return match["mask_number"]
    value = view.constant(match["mask"]) if match.get("mask") else None
    if value is None:
        return None
    if isinstance(value, Tensor) or value.size != 1:
        raise Refusal("its mask value is not one string")
    return value.item()


# -- Discretization -----------------------------------------------------------------------------------------------------

_BUCKETS = Apply("bucketize", _X, name="bucketize")


@rewrite("Discretization", Apply("cast", _BUCKETS, dtype="int64") | _BUCKETS)
def discretization(view: View, root: Node, match: Match) -> None:
    """The bucket of a number."""
    dtype = "int64" if root.op == "cast" else "int32"
    args = {"boundaries": tuple(view.nodes[match["bucketize"]].attrs["boundaries"]), "dtype": dtype}
    view.module(root, "Discretization", view.scope(root, "discretization"), args, match["x"])


# -- CategoryEncoding ---------------------------------------------------------------------------------------------------

_COUNTS = Apply("bincount", _X, Number(name="size"), Source("weights", _CONSTANT), flat=zero, name="bincount")
_IDF = Source("idf", _CONSTANT)


@rewrite("CategoryEncoding", Apply("cast", _COUNTS) * _IDF | _COUNTS * _IDF | _COUNTS)
def category_encoding(view: View, root: Node, match: Match) -> None:
    """Which ids occur in each row, how often, or with which weight."""
    binary = view.nodes[match["bincount"]].attrs["binary_output"]
    weights = view.constant(match["weights"])
    if view.rank(match["x"]) != 2:
        raise Refusal("its ids are not known to be rows")
    if weights.numel():
        raise Refusal("it sums weights")
    size = int(match["size"])
    mode = "tf_idf" if match.get("idf") else "multi_hot" if binary else "count"
    idf = view.constant(match["idf"]) if mode == "tf_idf" else weights
    dtype = dtype_name(idf)
    name = view.scope(root, "category_encoding", "idf", suffix="_encoding")
    if mode == "tf_idf":
        if binary or dtype not in FLOATS or tuple(idf.shape) != (size,) or not _fits(view, root, weights, dtype):
            raise Refusal("it is multiplied by something other than one number per token")
        view.store[f"{name}.idf"] = idf
    view.know(root, dtype, ((view.shape(match["x"]) or (None,))[0], size))
    view.module(root, "CategoryEncoding", name, {"num_tokens": size, "output_mode": mode, "dtype": dtype}, match["x"])


def _fits(view: View, root: Node, weights: Tensor, dtype: str) -> bool:
    """Whether the counts are multiplied in the dtype of the weights."""
    casts = [node for ref in root.inputs if (node := view.node(ref)) is not None and node.op == "cast"]
    return casts[0].attrs["dtype"] == dtype if casts else dtype_name(weights) == dtype
