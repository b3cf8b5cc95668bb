"""Removes range checks and casts of ids that provably stay in range: results of lookups, hashes, buckets and tokenizers
have known bounds.

Ids of an Embedding that may be negative (Keras 3 counts those from the end of the table) are wrapped by one op.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, number
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.graph import ModuleSpec, Node, node_of
from torch_towers.layers.sentencepiece import SentencepieceIds

_IDS = Any_("ids")
_INTEGERS = ("int32", "int64")
Range = tuple[int, int]


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
    bounds = bounds_of(view, ids) or _limits(own)
    return _limits(dtype)[0] <= bounds[0] and bounds[1] <= _limits(dtype)[1]


def _limits(dtype: str) -> Range:
    """The range in which a dtype represents all integers; (1, 0) if there is none."""
    if dtype in FLOATS:
        most = round(2 / torch.finfo(TORCH_DTYPES[dtype]).eps)
        return -most, most
    if dtype == "bool" or dtype.startswith("complex"):
        return 1, 0
    info = torch.iinfo(TORCH_DTYPES[dtype])
    return info.min, info.max


# -- bounds of ids
# --------------------------------------------------------------------------------------------------------

_KEEPS_VALUES = frozenset(
    {"reshape", "squeeze", "unsqueeze", "transpose", "slice", "select", "broadcast_to", "in_range"}
)
"""Ops whose results are values of their first operand."""

_MAX_DEPTH = 30


def bounds_of(view: View, operand: Any, depth: int = 0) -> Range | None:
    """The minimum and maximum of an operand's ids; None if unknown."""
    value = number(view, operand)
    if value is not None:
        return (int(value), int(value)) if float(value).is_integer() else None
    node = view.node(operand)
    while node is not None and node.op in _KEEPS_VALUES:
        operand = node.inputs[0]
        node = view.node(operand)
    if node is None or depth > _MAX_DEPTH:
        return None
    if node.op == "module":
        return _of_module(view, view.modules[str(node.attrs["module"])], operand)
    if node.op == "constant":
        return _of_constant(view.constant(operand))
    if node.op in ("cast", "to_integer"):
        return _within(bounds_of(view, node.inputs[0], depth + 1), str(node.attrs["dtype"]))
    if node.op == "add":
        parts = [bounds_of(view, part, depth + 1) for part in node.inputs]
        sums = (
            None if None in parts else (sum(part[0] for part in parts if part), sum(part[1] for part in parts if part))
        )
        return _within(sums, view.dtype(operand))
    if node.op == "floor_mod" and view.dtype(operand) in _INTEGERS:
        divisor = bounds_of(view, node.inputs[1], depth + 1)
        return (0, divisor[1] - 1) if divisor is not None and divisor[0] > 0 else None
    if node.op == "ragged_to_tensor":
        return _union(bounds_of(view, part, depth + 1) for part in node.inputs[:2])
    if node.op == "where" and len(node.inputs) == 3:
        return _union(bounds_of(view, part, depth + 1) for part in node.inputs[1:])
    return None


def _union(parts: Iterable[Range | None]) -> Range | None:
    known = list(parts)
    least, greatest = [part[0] for part in known if part], [part[1] for part in known if part]
    return (min(least), max(greatest)) if len(least) == len(known) else None


def _within(bounds: Range | None, dtype: str | None) -> Range | None:
    """`bounds`, if a dtype represents all integers between them."""
    if bounds is None or dtype not in TORCH_DTYPES:
        return None
    least, greatest = _limits(dtype)
    return bounds if least <= bounds[0] and bounds[1] <= greatest else None


def _of_constant(value: Any) -> Range | None:
    if not isinstance(value, Tensor) or not value.numel() or value.dtype not in (torch.int32, torch.int64):
        return None
    return int(value.min()), int(value.max())


def _of_module(view: View, spec: ModuleSpec, ref: str) -> Range | None:
    if spec.type in ("StringLookup", "IntegerLookup") or (
        spec.type == "TextVectorization" and spec.args["output_mode"] == "int"
    ):
        return _ids_of_vocabulary(view, spec)
    if spec.type == "Hashing":
        return 0, int(spec.args["num_bins"]) - 1
    if spec.type == "Discretization":
        return 0, len(spec.args["boundaries"])
    if spec.type == "SentencepieceTokenizer" and ref == f"{node_of(ref)}:0" and not spec.args.get("pieces"):
        return 0, pieces_of(view, spec) - 1
    if spec.type == "SentencepieceRows":
        shift, pad = int(spec.args["shift"]), int(spec.args["pad"])
        return min(shift, pad), max(shift + pieces_of(view, spec) - 1, pad)
    return None


def pieces_of(view: View, spec: ModuleSpec) -> int:
    """The vocabulary size of a SentencePiece model."""
    return int(SentencepieceIds(view.store[str(spec.args["model"])]).processor.GetPieceSize())


def _ids_of_vocabulary(view: View, spec: ModuleSpec) -> Range:
    args: dict[str, Any] = dict(spec.args)
    first, size = int(args["first_id"]), len(view.store[args["vocabulary"]])
    ids = [int(args["oov_id"]), int(args["oov_id"]) + max(int(args.get("oov_buckets", 0)) - 1, 0)]
    ids += [first, first + size - 1] if size else []
    ids += [int(args["mask_id"])] if args.get("mask_token") is not None else []
    ids += [int(args["pad_id"])] if spec.type == "TextVectorization" else []
    return min(ids), max(ids)
