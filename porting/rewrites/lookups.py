"""StringLookup, IntegerLookup: a table with consecutive values, its mask token, and hash buckets for unknown tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Number, Refusal, Source, Where
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Node

_X = Any_("x")
_CONSTANT = frozenset({"constant"})


def _is_table(view: Any, operand: Any) -> bool:
    return view.module_of(view.node(operand), "LookupTable") is not None


_FOUND = Where(Apply("module", _X, Source("default", _CONSTANT), name="table"), _is_table)
_MASK = Source("mask", _CONSTANT) | Number(name="mask_number")
_MASKED = Apply("where", Apply("equal", _X, _MASK), Number(name="mask_id"), _FOUND)
_KNOWN = _MASKED | _FOUND
_BUCKET = Apply("hash_bucket_fast", _X, name="hash") | Apply("floor_mod", _X, Number(name="buckets"))
_OTHER = _BUCKET + Number(name="oov_start") | _BUCKET
_HASHED = Apply("where", Apply("equal", _KNOWN, -1), _OTHER, _KNOWN) | Apply(
    "where", Apply("not_equal", _KNOWN, -1), _KNOWN, _OTHER
)
"""Keras, and TensorFlow's own tables with buckets."""


@rewrite("Lookup", _HASHED | _MASKED | _FOUND)
def lookup(view: View, root: Node, match: Match) -> str:
    """`table(x)`, with the mask token replaced, and remaining -1 hashed."""
    table = view.nodes[match["table"]]
    spec = view.modules[str(table.attrs["module"])]
    keys, values = view.store[spec.args["keys"]], view.store[spec.args["values"]]
    first = _first_id(values)
    if len(set(keys.tolist())) != len(keys):
        raise Refusal("its table has duplicate keys")
    kind = "IntegerLookup" if isinstance(keys, Tensor) else "StringLookup"
    if isinstance(keys, Tensor) and (keys.is_floating_point() or keys.dtype == torch.bool):
        raise Refusal("its keys are neither strings nor integers")
    args: dict[str, Any] = {"vocabulary": spec.args["keys"], "first_id": first}
    args |= _unknown(view, match)
    args |= _mask(view, match, kind)
    if view.dtype(root.name) == "int32":
        args["dtype"] = "int32"
    if view.shape(root.name) != view.shape(match["x"]):
        raise Refusal("its result is not known to have its input's shape")
    held = str(table.attrs["module"])
    if len([node for node in view.nodes.values() if node.attrs.get("module") == held]) == 1:
        del view.modules[held]  # frees its name for the layer that replaces it
    wanted = view.scope(table, "lookup", "vocabulary")
    args["vocabulary"] = _vocabulary(view, spec.args["keys"], wanted)
    view.module(root, kind, _shared(view, kind, args, wanted), args, match["x"])
    return kind


def _vocabulary(view: View, keys: str, name: str) -> str:
    """The name of the vocabulary in the store, shared by all lookups in a table."""
    vocabulary = view.layers.setdefault(("vocabulary", keys), f"{name}.vocabulary")
    view.store[vocabulary] = view.store[keys]
    return vocabulary


def _shared(view: View, kind: str, args: dict[str, Any], wanted: str) -> str:
    """An existing module with exactly these arguments, or a new one."""
    key = (kind, repr(sorted(args.items())))
    return view.layers.setdefault(key, wanted)


def _first_id(values: Any) -> int:
    """The value of the first key, if the values are consecutive."""
    if not isinstance(values, Tensor) or values.ndim != 1 or values.dtype not in (torch.int64, torch.int32):
        raise Refusal("its table does not hold integers, so it stays a table")
    first = int(values[0]) if len(values) else 0
    if first < 0 or not torch.equal(values.to(torch.int64), torch.arange(first, first + len(values))):
        raise Refusal("the values of its table are not consecutive, so it stays a table")
    return first


def _unknown(view: View, match: Match) -> dict[str, Any]:
    default = view.constant(match["default"])
    oov = int(default.item()) if isinstance(default, Tensor) and default.ndim == 0 else None
    if oov is None:
        raise Refusal("its default is not one number")
    if match.get("hash") is None and match.get("buckets") is None:
        return {"oov_id": oov}
    if oov != -1:
        raise Refusal(f"its default is {oov}, and only what is -1 is hashed")
    buckets = match["buckets"] if match.get("hash") is None else view.nodes[match["hash"]].attrs["num_buckets"]
    if int(buckets) < 1:
        raise Refusal(f"it hashes into {buckets} buckets")
    return {"oov_id": int(match.get("oov_start") or 0), "oov_buckets": int(buckets)}


def _mask(view: View, match: Match, kind: str) -> dict[str, Any]:
    if match.get("mask_id") is None:
        return {}
    token = match.get("mask_number")
    if token is None:
        value = view.constant(match["mask"])
        token = value.item() if value.ndim == 0 or value.size == 1 else None
    if not isinstance(token, bytes if kind == "StringLookup" else int) or int(match["mask_id"]) == -1:
        raise Refusal(f"its mask token {token!r} is not one of its keys' kind")
    return {"mask_token": token, "mask_id": int(match["mask_id"])}
