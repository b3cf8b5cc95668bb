"""Ids that cannot leave their range: what a lookup, a hash, a bucket or a tokenizer gives is known beforehand, so that checks of it
go, and so do casts there and back.

The ids of an Embedding that may be negative (Keras 3 counts those from the end of the table) are wrapped by one op.
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
    """`where(ids < 0, ids + size, ids)` is `ids` where they cannot be negative, and `wrap_negative(ids)` elsewhere."""
    if view.dtype(match["ids"]) not in _INTEGERS or view.shape(root.name) != view.shape(match["ids"]):
        raise Refusal("its ids are not known to be integers of the result's shape")
    bounds = bounds_of(view, match["ids"])
    if bounds is not None and bounds[0] >= 0:
        view.alias(root, match["ids"])
    else:
        view.rewrite(root, "wrap_negative", match["ids"], size=int(match["size"]))


@rewrite("", Apply("in_range", _IDS, Number(name="limit")))
def in_range(view: View, root: Node, match: Match) -> None:
    """A check that cannot fail is no check."""
    bounds = bounds_of(view, match["ids"])
    if bounds is None or bounds[0] < 0 or bounds[1] >= match["limit"]:
        raise Refusal("its ids may leave the range")
    view.alias(root, match["ids"])


# -- casts there and back -----------------------------------------------------------------------------------------------

_THERE = Apply("cast", _IDS, name="there")


@rewrite("", Apply("cast", _THERE) | Apply("to_integer", _THERE))
def cast_back(view: View, root: Node, match: Match) -> None:
    """Integers as floats, or as longer integers, and as integers again: where each value has its own, they are what they were."""
    ids, dtype = match["ids"], str(root.attrs["dtype"])
    if dtype not in _INTEGERS or not _keeps(view, ids, view.dtype(match["there"])):
        raise Refusal("its ids may not fit the dtype between")
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
    """Ids that were made floats and are compared with a number, as `mask_zero` of a model in TF-Keras does: themselves compared."""
    ids, value = match["ids"], float(match["number"])
    if not value.is_integer() or abs(value) >= 2**31:
        raise Refusal("it is compared with what is no integer of 32 bits")
    shape = view.shape(root.name)
    if shape is None or shape != view.shape(ids) or not _keeps(view, ids, view.dtype(match["there"])):
        raise Refusal("its ids may not fit the dtype between")
    operands = (ids, int(value)) if match["there"] == node_of(root.inputs[0]) else (int(value), ids)
    view.rewrite(root, root.op, *operands)


def _keeps(view: View, ids: str, dtype: str | None) -> bool:
    """Whether every value that `ids` can have is one of `dtype`, different from all others."""
    own = view.dtype(ids)
    if own not in _INTEGERS or dtype not in TORCH_DTYPES:
        return False
    bounds = bounds_of(view, ids) or _limits(own)
    return _limits(dtype)[0] <= bounds[0] and bounds[1] <= _limits(dtype)[1]


def _limits(dtype: str) -> Range:
    """The least and the greatest integer of a dtype between which it has all others; (1, 0) for what has no integers."""
    if dtype in FLOATS:
        most = round(2 / torch.finfo(TORCH_DTYPES[dtype]).eps)
        return -most, most
    if dtype == "bool" or dtype.startswith("complex"):
        return 1, 0
    info = torch.iinfo(TORCH_DTYPES[dtype])
    return info.min, info.max


# -- what is known of ids -----------------------------------------------------------------------------------------------

_KEEPS_VALUES = frozenset(
    {"reshape", "squeeze", "unsqueeze", "transpose", "slice", "select", "broadcast_to", "in_range"}
)
"""Ops whose results are among their first operand's values."""

_DEEPEST = 30


def bounds_of(view: View, operand: Any, depth: int = 0) -> Range | None:
    """The least and the greatest id that an operand can hold; None where that is not known."""
    value = number(view, operand)
    if value is not None:
        return (int(value), int(value)) if float(value).is_integer() else None
    node = view.node(operand)
    while node is not None and node.op in _KEEPS_VALUES:
        operand = node.inputs[0]
        node = view.node(operand)
    if node is None or depth > _DEEPEST:
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
    """`bounds`, where a dtype holds all that is between them as it is."""
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
    """How many pieces a SentencePiece model has."""
    return int(SentencepieceIds(view.store[str(spec.args["model"])]).processor.GetPieceSize())


def _ids_of_vocabulary(view: View, spec: ModuleSpec) -> Range:
    args: dict[str, Any] = dict(spec.args)
    first, size = int(args["first_id"]), len(view.store[args["vocabulary"]])
    ids = [int(args["oov_id"]), int(args["oov_id"]) + max(int(args.get("oov_buckets", 0)) - 1, 0)]
    ids += [first, first + size - 1] if size else []
    ids += [int(args["mask_id"])] if args.get("mask_token") is not None else []
    ids += [int(args["pad_id"])] if spec.type == "TextVectorization" else []
    return min(ids), max(ids)
