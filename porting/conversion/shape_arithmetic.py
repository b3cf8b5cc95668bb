"""Shape arithmetic at port time: `Shape -> StridedSlice -> Pack -> Reshape` folds to a reshape.

Each rule works on numpy object arrays whose elements are integers or run-time sizes, so that slicing, joining and
gathering are numpy's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from porting.conversion.values import LISTED, Constant, Dimensions, Sizes, Value
from torch_towers import ops as _ops  # noqa: F401  (fills OPS)
from torch_towers.graph.graph import Node
from torch_towers.graph.registry import OPS

Items = np.ndarray[Any, np.dtype[np.object_]]
RULES: dict[str, Callable[..., Items | None]] = {}
INTEGERS = ("int32", "int64")


Rule = TypeVar("Rule", bound=Callable[..., "Items | None"])


def rule(*ops: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return add


def fold(t: Any, node: Node, operands: list[Any]) -> Sizes | None:
    """The result of a node of shape arithmetic as `Sizes`; None for other nodes."""
    if node.op not in RULES or not any(isinstance(operand, Sizes) for operand in operands):
        return None
    if node.op in COMPARISONS and not t.counting:
        return None
    arrays = [_items(operand) for operand in operands]
    if any(array is None for array in arrays):
        return None
    dtype = next(operand.dtype for operand in operands if isinstance(operand, Sizes))
    result = RULES[node.op](t, *arrays, **node.attrs)
    if result is None or result.ndim > (2 if node.op in ("Pack", "StridedSlice") else 1):
        return None
    return Sizes(result, "bool" if node.op in COMPARISONS else node.attrs.get("DstT", dtype))


def of(t: Any, value: Any, dtype: str) -> Sizes | None:
    """The shape of `value` as `Sizes`; None if its rank is unknown."""
    if value.shape is None:
        return None
    return Sizes(vector(t.sizes(value)), dtype)


def as_dimensions(operand: Any) -> Dimensions:
    """An operand as a list of sizes: integers and run-time sizes; a single run-time tensor is returned unchanged."""
    if isinstance(operand, Constant):
        operand.require_at_most(LISTED)
    items = _items(operand)
    return Dimensions([operand] if items is None else items.reshape(-1).tolist())


def vector(items: list[Any]) -> Items:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def scalar(item: Any) -> Items:
    array = np.empty((), object)
    array[()] = item
    return array


def _items(operand: Any) -> Items | None:
    """Sizes, and small integer constants of rank 0 or 1, as an object array."""
    if isinstance(operand, Sizes):
        return operand.items
    if isinstance(operand, Constant) and operand.dtype in INTEGERS and len(operand.shape) <= 1:
        return operand.array.numpy().astype(object) if math.prod(operand.shape) <= LISTED else None
    if isinstance(operand, Value) and operand.dtype == "size":
        return scalar(operand)
    return None


def _arithmetic(name: str) -> Callable[..., Items]:
    function = OPS[name].function  # the run-time function, so that both refuse the same inputs

    def one(t: Any, a: Any, b: Any) -> Any:
        return function(a, b) if isinstance(a, int) and isinstance(b, int) else _simple(t, name, a, b)

    def apply(t: Any, a: Items, b: Items, **attrs: Any) -> Items:
        a, b = np.broadcast_arrays(a, b)
        return np.asarray(np.frompyfunc(lambda x, y: one(t, x, y), 2, 1)(a, b), dtype=object)

    return apply


def _simple(t: Any, name: str, a: Any, b: Any) -> Any:
    """Simplifies `x * 1` and `x + 0` to `x`."""
    neutral = {"size_mul": 1, "size_add": 0}.get(name)
    if a == neutral and isinstance(a, int):
        return b
    if b == neutral and isinstance(b, int):
        return a
    return t.call(name, a, b)


add = rule("Add", "AddV2")(_arithmetic("size_add"))
sub = rule("Sub")(_arithmetic("size_sub"))
mul = rule("Mul")(_arithmetic("size_mul"))
mod = rule("FloorMod")(_arithmetic("size_mod"))
floordiv = rule("FloorDiv")(_arithmetic("size_floordiv"))
maximum = rule("Maximum")(_arithmetic("size_max"))
minimum = rule("Minimum")(_arithmetic("size_min"))

# The condition of a counting loop as a Python integer, 1 or 0. Elsewhere a comparison is a tensor.
rule("Less")(_arithmetic("size_less"))
rule("LogicalAnd")(_arithmetic("size_mul"))
COMPARISONS = frozenset({"Less", "LogicalAnd"})


@rule("Identity", "StopGradient", "EnsureShape")
def _identity(t: Any, x: Items, **attrs: Any) -> Items:
    return x


@rule("ZerosLike")
def _zeros(t: Any, x: Items, **attrs: Any) -> Items:
    return np.zeros(x.shape, np.int64).astype(object)


@rule("OnesLike")
def _ones(t: Any, x: Items, **attrs: Any) -> Items:
    return np.ones(x.shape, np.int64).astype(object)


@rule("Cast")
def _cast(t: Any, x: Items, *, DstT: str, **attrs: Any) -> Items | None:  # noqa: N803
    return x if DstT in INTEGERS else None


@rule("Squeeze", "Reshape")
def _scalar_or_vector(t: Any, x: Items, shape: Items | None = None, **attrs: Any) -> Items | None:
    if shape is None:
        return x.reshape(()) if x.size == 1 else x
    sizes = shape.tolist()
    return x.reshape(sizes) if all(isinstance(size, int) for size in sizes) else None


@rule("ExpandDims")
def _expand(t: Any, x: Items, axis: Items, **attrs: Any) -> Items | None:
    return x.reshape(1) if x.ndim == 0 else None


@rule("Pack")
def _pack(t: Any, *items: Items, axis: int = 0, **attrs: Any) -> Items | None:
    """Sizes as a list, or lists of sizes as the rows of a matrix, such as paddings (before, after) per axis."""
    if all(item.ndim == 0 for item in items):
        return vector([item.item() for item in items])
    return np.stack(items) if axis == 0 and all(item.shape == (2,) for item in items) else None


@rule("ConcatV2")
def _concat(t: Any, *items: Items, **attrs: Any) -> Items | None:
    return np.concatenate(items[:-1]) if all(item.ndim == 1 for item in items[:-1]) else None


@rule("GatherV2", "Gather")
def _gather(t: Any, x: Items, indices: Items, axis: Items | None = None, **attrs: Any) -> Items | None:
    if x.ndim != 1 or attrs.get("batch_dims", 0) or not _fixed(indices) or not _within(indices, len(x)):
        return None
    return np.asarray(x[indices.astype(np.int64)], dtype=object).reshape(indices.shape)


@rule("Slice")
def _slice(t: Any, x: Items, begin: Items, length: Items, **attrs: Any) -> Items | None:
    if x.ndim != 1 or not (_fixed(begin) and _fixed(length)):
        return None
    start, count = begin.item(), length.item()
    return x[start:] if count == -1 else x[start : start + count]


@rule("StridedSlice")
def _strided_slice(t: Any, x: Items, begin: Items, end: Items, strides: Items, **masks: Any) -> Items | None:
    plain = not (masks.get("ellipsis_mask", 0) or masks.get("new_axis_mask", 0))
    if not x.ndim or begin.size != 1 or not plain or not all(map(_fixed, (begin, end, strides))):
        return None
    start, stop, step = begin.item(), end.item(), strides.item()
    if masks.get("shrink_axis_mask", 0):
        return (scalar(x[start]) if x.ndim == 1 else x[start]) if -len(x) <= start < len(x) else None
    return x[None if masks.get("begin_mask", 0) else start : None if masks.get("end_mask", 0) else stop : step]


@rule("Prod")
def _prod(t: Any, x: Items, axis: Items, *, keep_dims: bool = False, **attrs: Any) -> Items | None:
    if x.ndim != 1 or axis.size != 1:
        return None if axis.size else x
    total: Any = 1
    for item in x.tolist():
        total = mul(t, scalar(total), scalar(item)).item()
    return vector([total]) if keep_dims else scalar(total)


@rule("Unpack")
def _unpack(t: Any, x: Items, **attrs: Any) -> None:
    return None


def _fixed(items: Items) -> bool:
    return all(isinstance(item, int) for item in items.reshape(-1).tolist())


def _within(indices: Items, length: int) -> bool:
    return all(0 <= index < length for index in indices.reshape(-1).tolist())


def shape_of(t: Any, value: Any, dtype: str) -> Any:
    """The converter of `Shape`: sizes if the rank is known, else a run-time tensor."""
    if isinstance(value, Constant):
        return Constant(torch.tensor(value.shape, dtype=torch.int64 if dtype == "int64" else torch.int32))
    if isinstance(value, Sizes):
        return Sizes(vector(list(value.shape)), dtype)
    return of(t, value, dtype) or t.shape(value, dtype=dtype)
