"""Shapes, slices, joins, gathers and scatters, for tensors and strings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.shape_arithmetic import add as size_add
from porting.conversion.shape_arithmetic import as_dimensions, scalar, vector
from porting.conversion.values import Constant, Dimensions, Sizes, Value, constant
from porting.converters.basics import read
from porting.errors import PortingError
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.graph import Node, Size

Emit = ConvertingEmitter

INTEGERS = tuple(name for name in TORCH_DTYPES if "int" in name)


def items_of(t: Emit, operand: Any) -> list[Any]:
    """The elements of a small integer tensor as integers or run-time sizes; its length must be known."""
    found = as_dimensions(operand)
    if len(found) != 1 or found[0] is not operand or (isinstance(operand, Value) and operand.dtype == "size"):
        return list(found)
    if isinstance(operand, Constant):
        return operand.array.reshape(-1).tolist()  # `as_dimensions` refuses large ones
    if not _has_length(operand):
        raise PortingError(f"{t.scope!r}: the length of {operand.ref!r} is known only at run time")
    shape: Any = operand.shape
    return [t.item(operand, index=i) for i in range(math.prod(shape))]


def sizes_of(t: Emit, operand: Any) -> list[Any]:
    """Like `items_of`, or the tensor itself if its length is known only at run time, for ops that accept either."""
    return items_of(t, operand) if isinstance(operand, Sizes) or _has_length(operand) else [operand]


def _has_length(operand: Any) -> bool:
    return operand.shape is not None and all(isinstance(size, int) for size in operand.shape)


def shaped(t: Emit, result: Any, shape: tuple[Size, ...] | list[Size], dtype: str | None = None) -> Any:
    """`result` with a shape that the op itself cannot infer."""
    if not isinstance(result, Value):
        return result
    known = result.shape if result.shape is not None and len(result.shape) == len(shape) else (None,) * len(shape)
    merged = tuple(old if new is None else new for old, new in zip(known, shape, strict=True))
    return result if merged == result.shape and result.dtype else t.value(result.ref, result.dtype or dtype, merged)


def _known_rank(t: Emit, x: Any) -> int:
    if x.shape is None:
        raise PortingError(f"{t.scope!r}: the rank of its operand is known only at run time")
    return len(x.shape)


# -- shapes -------------------------------------------------------------------------------------------------------------


@converter("Reshape")
def reshape(t: Emit, x: Any, shape: Any) -> Any:
    if not _has_length(shape):
        return t.reshape(x, shape)
    items = items_of(t, shape)
    wanted: list[Size] = [t.symbol(item) if isinstance(item, Value) or item != -1 else None for item in items]
    if isinstance(x, Value) and x.shape is not None and tuple(wanted) == x.shape:
        return x
    return shaped(t, t.reshape(x, *items), wanted, x.dtype)


@converter("Transpose")
def transpose(t: Emit, x: Any, perm: tuple[int, ...]) -> Any:
    return x if perm == tuple(range(len(perm))) else t.transpose(x, perm=perm)


@converter("ConjugateTranspose")
def conjugate_transpose(t: Emit, x: Any, perm: tuple[int, ...]) -> Any:
    return transpose(t, t.conj(x), perm)


@converter("DataFormatVecPermute")
def data_format_vec_permute(t: Emit, x: Any, *, src_format: str = "NHWC", dst_format: str = "NCHW") -> Any:
    """A vector with one number, or pair, per axis, in the axis order of another layout; only spatial axes if it is
    shorter."""
    length = _known_length(t, x)
    source, target = src_format, dst_format
    if length == len(source) - 2:
        source, target = (re.sub("[NC]", "", layout) for layout in (source, target))
    order = tuple(source.index(axis) for axis in target)
    if isinstance(x, Sizes):
        return Sizes(x.items[list(order)], x.dtype)
    return t.gather(x, constant(torch.tensor(order)), axis=0, batch_dims=0)


def _known_length(t: Emit, x: Any) -> int:
    if x.shape is None or not x.shape or not isinstance(x.shape[0], int):
        raise PortingError(f"{t.scope!r}: the number of axes that it permutes is known only at run time")
    return x.shape[0]


@converter("DataFormatDimMap")
def data_format_dim_map(t: Emit, x: Any, *, src_format: str = "NHWC", dst_format: str = "NCHW") -> Any:
    """The index of each axis, counted from either end, in another layout."""
    places = constant(torch.tensor([dst_format.index(axis) for axis in src_format], dtype=TORCH_DTYPES[x.dtype]))
    wrapped = t.floor_mod(t.tensor(x), constant(torch.tensor(len(src_format), dtype=TORCH_DTYPES[x.dtype])))
    return t.gather(places, wrapped, axis=0, batch_dims=0)


@converter("ExpandDims")
def expand_dims(t: Emit, x: Any, axis: int) -> Any:
    return t.unsqueeze(x, axis=axis)


@converter("Squeeze")
def squeeze(t: Emit, x: Any, *, squeeze_dims: Any = ()) -> Any:
    """Without `squeeze_dims`, every axis of length 1 is removed, even if its length just happens to be 1."""
    axes = tuple(squeeze_dims)
    if not axes and x.shape is not None and all(isinstance(size, int) for size in x.shape):
        axes = tuple(i for i, size in enumerate(x.shape) if size == 1)
        if not axes:
            return x
    return t.squeeze(x, axes=axes) if axes else t.squeeze_all(x)


@converter("BroadcastTo")
def broadcast_to(t: Emit, x: Any, shape: Any) -> Any:
    if not _has_length(shape):
        return t.broadcast_to(x, shape)
    items = items_of(t, shape)
    return shaped(t, t.broadcast_to(x, *items), [t.symbol(item) for item in items], x.dtype)


@converter("Empty")
def empty(t: Emit, shape: Any, *, dtype: str, init: bool = False) -> Any:
    """Without `init` TensorFlow leaves memory uninitialized: zeros here."""
    zero = constant(b"") if dtype == "string" else constant(torch.zeros((), dtype=TORCH_DTYPES[dtype]))
    return broadcast_to(t, zero, shape)


@converter("Fill", ignores=("index_type",))
def fill(t: Emit, dims: Any, value: Any) -> Any:
    return broadcast_to(t, value, dims)


@converter("BroadcastArgs", refuses="shapes of unknown length")
def broadcast_args(t: Emit, a: Any, b: Any) -> Any:
    """The shape that two shapes broadcast to."""
    first, second = items_of(t, a), items_of(t, b)
    longest = max(len(first), len(second))
    pairs = zip([1] * (longest - len(first)) + first, [1] * (longest - len(second)) + second, strict=True)
    return Sizes(vector([_broadcast_size(t, x, y) for x, y in pairs]), a.dtype)


def _broadcast_size(t: Emit, a: Any, b: Any) -> Any:
    for one, other in ((a, b), (b, a)):
        if isinstance(one, int):
            return other if one == 1 else one
    return a if a == b else t.size_max(a, b)


@converter("Tile")
def tile(t: Emit, x: Any, multiples: Any) -> Any:
    if not _has_length(multiples):
        return t.tile(x, multiples)
    items = items_of(t, multiples)
    sizes: list[Size] = [None] * len(items)
    if x.shape is not None:
        sizes = [_tiled(t, size, times) for size, times in zip(x.shape, items, strict=True)]
    return shaped(t, t.tile(x, *items), sizes, x.dtype)


def _tiled(t: Emit, size: Size, times: Any) -> Size:
    if size == 1:
        return t.symbol(times)
    if isinstance(times, int) and times == 1:
        return size
    return size * times if isinstance(size, int) and isinstance(times, int) else None


@converter("ZerosLike")
def zeros_like(t: Emit, x: Any) -> Any:
    return t.zeros_like(x)


@converter("OnesLike")
def ones_like(t: Emit, x: Any) -> Any:
    return t.ones_like(x)


# -- joining and splitting ----------------------------------------------------------------------------------------------


@converter("ConcatV2")
def concat_v2(t: Emit, *operands: Any) -> Any:
    *xs, axis = operands
    return _concat(t, xs, axis)


@converter("Concat")
def concat(t: Emit, axis: Any, *xs: Any) -> Any:
    return _concat(t, xs, axis)


def _concat(t: Emit, xs: Sequence[Any], axis: Any) -> Any:
    if not isinstance(axis, Constant):
        raise PortingError(f"{t.scope!r} joins tensors along an axis that is known only at run time")
    ranks = [len(x.shape) for x in xs if isinstance(x, Value) and x.shape is not None]
    if ranks and not -ranks[0] <= axis.python() < ranks[0]:
        raise PortingError(
            f"{t.scope!r}: concat_dim {axis.python()} is out of range: expected -{ranks[0]} to {ranks[0] - 1} for tensors of rank {ranks[0]}"
        )
    return t.concat(*xs, axis=axis.python()) if len(xs) > 1 else next(iter(xs))


@converter("Pack")
def pack(t: Emit, *xs: Any, axis: int = 0) -> Any:
    return t.call("stack", *xs, axis=axis)  # `t.stack` is an attribute of the emitter


@converter("ParallelConcat", ignores=("shape",))
def parallel_concat(t: Emit, *xs: Any) -> Any:
    return t.concat(*xs, axis=0) if len(xs) > 1 else next(iter(xs))


@converter("ConcatOffset", ignores=("shape_type",), refuses="shapes of unknown length")
def concat_offset(t: Emit, axis: int, *shapes: Any) -> list[Any]:
    """The start of each joined tensor: 0, except on the axis of concatenation."""
    starts: list[Any] = []
    total: Any = scalar(0)
    for shape in shapes:
        items = items_of(t, shape)
        offsets: list[Any] = [0] * len(items)
        offsets[axis] = total.item()
        starts.append(Sizes(vector(offsets), shape.dtype))
        total = size_add(t, total, scalar(items[axis]))
    return starts


@converter("Unpack")
def unpack(t: Emit, x: Any, *, num: int, axis: int = 0) -> list[Any]:
    if _is_vector_of_sizes(x):
        return [Sizes(scalar(item), x.dtype) for item in x.items.tolist()]
    return list(t.unstack(x, axis=axis, num=num))


@converter("Split")
def split(t: Emit, axis: int, x: Any, *, num_split: int) -> list[Any]:
    if _is_vector_of_sizes(x):
        return [Sizes(part, x.dtype) for part in np.split(x.items, num_split)]
    return [x] if num_split == 1 else list(t.chunk(x, axis=axis, num=num_split))


@converter("SplitV", ignores=("num_split", "Tlen"))
def split_v(t: Emit, x: Any, lengths: tuple[int, ...], axis: int) -> list[Any]:
    if _is_vector_of_sizes(x):
        rest = len(x.items) - sum(length for length in lengths if length != -1)
        ends = np.cumsum([rest if length == -1 else length for length in lengths])
        return [Sizes(part, x.dtype) for part in np.split(x.items, ends[:-1])]
    return list(t.split_sizes(x, axis=axis, lengths=lengths))


def _is_vector_of_sizes(x: Any) -> bool:
    return isinstance(x, Sizes) and x.items.ndim == 1


# -- slices -------------------------------------------------------------------------------------------------------------


@converter("Slice", ignores=("Index",))
def slice_(t: Emit, x: Any, begin: Any, size: Any) -> Any:
    begins, sizes = items_of(t, begin), items_of(t, size)
    for axis, (start, length) in enumerate(zip(begins, sizes, strict=True)):
        whole = None if x.shape is None else x.shape[axis]
        starts = isinstance(start, int) and start == 0
        if starts and ((isinstance(length, int) and length == -1) or (whole is not None and t.symbol(length) == whole)):
            continue
        known: list[Size] = list(x.shape or [None] * len(begins))
        known[axis] = _narrowed(t, whole, start, length)
        x = shaped(t, t.narrow(x, start, length, axis=axis), known, x.dtype)
    return x


def _narrowed(t: Emit, whole: Size, start: Any, length: Any) -> Size:
    if isinstance(length, int) and length == -1:
        return whole - start if isinstance(whole, int) and isinstance(start, int) else None
    return t.symbol(length)


@converter("StridedSlice", ignores=("Index",), refuses="an ellipsis before other axes if the rank is unknown")
def strided_slice(t: Emit, x: Any, begin: Any, end: Any, strides: tuple[int, ...], *, begin_mask: int = 0, end_mask: int = 0,
                  ellipsis_mask: int = 0, new_axis_mask: int = 0, shrink_axis_mask: int = 0) -> Any:  # fmt: skip
    """One op per axis: `x[:, 0]` is a select. The mask bits give the meaning of each index position."""
    begins, ends = items_of(t, begin), items_of(t, end)
    axis = 0
    for i, step in enumerate(strides):
        bit = 1 << i
        if ellipsis_mask & bit:
            rest = sum(1 for j in range(i + 1, len(strides)) if not new_axis_mask >> j & 1)
            axis = _known_rank(t, x) - rest if i + 1 < len(strides) else axis
        elif new_axis_mask & bit:
            x = t.unsqueeze(x, axis=axis)
            axis += 1
        elif shrink_axis_mask & bit:
            x = t.select(x, begins[i], axis=axis)
        else:
            start, stop = None if begin_mask & bit else begins[i], None if end_mask & bit else ends[i]
            x = _slice_axis(t, x, start, stop, axis, step)
            axis += 1
    return x


def _slice_axis(t: Emit, x: Any, start: Any, stop: Any, axis: int, step: int) -> Any:
    if step == 1 and (start is None or (isinstance(start, int) and start == 0)):
        if stop is None or (isinstance(x, Value) and x.shape is not None and t.symbol(stop) == x.shape[axis]):
            return x
        start = 0
    found = t.slice(x, start, stop, axis=axis, step=step)
    if x.shape is None:
        return found
    known: list[Size] = list(x.shape)
    whole = known[axis]
    fixed = all(item is None or isinstance(item, int) for item in (start, stop))
    if fixed and isinstance(whole, int):
        known[axis] = len(range(whole)[start:stop:step])
    elif not (start is None and stop is None and step == -1):
        known[axis] = None
    return shaped(t, found, known, x.dtype)


@converter("ReverseV2")
def reverse_v2(t: Emit, x: Any, axes: tuple[int, ...]) -> Any:
    return t.flip(x, axes=axes) if axes else x


@converter("Reverse")
def reverse(t: Emit, x: Any, dims: tuple[bool, ...]) -> Any:
    return reverse_v2(t, x, tuple(i for i, backwards in enumerate(dims) if backwards))


@converter("ReverseSequence")
def reverse_sequence(t: Emit, x: Any, lengths: Any, *, seq_dim: int, batch_dim: int = 0) -> Any:
    return t.reverse_sequence(x, lengths, axis=seq_dim, batch_axis=batch_dim)


@converter("Roll")
def roll(t: Emit, x: Any, shift: Any, axis: tuple[int, ...]) -> Any:
    shifts = sizes_of(t, shift)
    if all(isinstance(item, int) for item in shifts):
        return t.roll(x, shifts=tuple(shifts), axes=axis)
    return t.roll_by(x, *shifts, axes=axis)


# -- gathering and scattering -------------------------------------------------------------------------------------------


@converter("GatherV2")
def gather_v2(t: Emit, params: Any, indices: Any, axis: int, *, batch_dims: int = 0) -> Any:
    return gather(t, params, indices, axis=axis, batch_dims=batch_dims)


@converter("Gather")
def gather_v1(t: Emit, params: Any, indices: Any) -> Any:
    return gather(t, params, indices, axis=0)


@converter("ResourceGather")
def resource_gather(t: Emit, resource: Any, indices: Any, *, dtype: str, batch_dims: int = 0) -> Any:
    return gather(t, read(t, resource, dtype), indices, axis=batch_dims, batch_dims=batch_dims)


def gather(t: Emit, params: Any, indices: Any, *, axis: int, batch_dims: int = 0) -> Any:
    """A gather with a range check of its indices: TensorFlow's CPU kernel refuses an index out of range."""
    limit = t.size(params, axis=axis) if params.shape is None else t.sizes(params)[axis]
    if batch_dims < 0:
        batch_dims += _known_rank(t, indices)
    return t.gather(params, checked(t, indices, limit), axis=axis, batch_dims=batch_dims)


def checked(t: Emit, indices: Any, limit: Any) -> Any:
    """`indices` after the check that they are in `[0, limit)`, unless they provably are."""
    highest = _highest(t, indices.ref) if isinstance(indices, Value) else None
    if highest is not None and isinstance(limit, int) and highest < limit:
        return indices
    if isinstance(indices, Constant) and isinstance(limit, int):
        t.in_range(indices, limit)  # folded
        return indices
    return t.in_range(indices, limit)


_KEEPS_VALUES = frozenset(
    [
        "reshape",
        "unsqueeze",
        "squeeze",
        "transpose",
        "identity",
        "cast",
        "in_range",
        "slice",
        "select",
        "narrow",
        "tile",
        "concat",
    ]
)


def _highest(t: Emit, ref: str) -> int | None:
    """An upper bound of a node's values, if known; never below 0."""
    node: Node | None = next((node for node in reversed(t.nodes) if node.name == ref), None)
    if node is None:
        return None
    if node.op in _KEEPS_VALUES:
        found = [
            _highest(t, item)
            for item in (node.inputs if node.op == "concat" else node.inputs[:1])
            if isinstance(item, str)
        ]
        return None if None in found else max((item for item in found if item is not None), default=None)
    if node.op == "bucketize":
        return len(node.attrs["boundaries"])
    if node.op == "floor_mod" and isinstance(node.inputs[1], int) and node.inputs[1] > 0:
        return node.inputs[1] - 1
    return None


@converter("GatherNd", refuses="other policies for bad indices than refusing them")
def gather_nd(t: Emit, params: Any, indices: Any, *, bad_indices_policy: str = "") -> Any:
    if bad_indices_policy not in ("", "DEFAULT", "ERROR"):
        raise PortingError(f"GatherNd {t.scope!r}: the policy {bad_indices_policy!r} for bad indices is not supported")
    return t.gather_nd(params, _checked_rows(t, params, indices, "param shape"))


@converter("ResourceGatherNd")
def resource_gather_nd(t: Emit, resource: Any, indices: Any, *, dtype: str) -> Any:
    return gather_nd(t, read(t, resource, dtype), indices)


def _checked_rows(t: Emit, x: Any, indices: Any, what: str) -> Any:
    sizes = [t.shape(x, dtype="int64")] if x.shape is None else t.sizes(x)
    return t.in_shape(indices, *sizes, what=what)


@converter("ScatterNd", refuses="other policies for bad indices than refusing them")
def scatter_nd(t: Emit, indices: Any, updates: Any, shape: Any, *, bad_indices_policy: str = "") -> Any:
    zero = constant(b"") if updates.dtype == "string" else constant(torch.zeros((), dtype=TORCH_DTYPES[updates.dtype]))
    target = broadcast_to(t, zero, shape)
    return _scatter(t, target, indices, updates, "update" if updates.dtype == "string" else "add", bad_indices_policy)


def _tensor_scatter(op: str, mode: str) -> None:
    @converter(op, refuses="other policies for bad indices than refusing them")
    def convert(t: Emit, x: Any, indices: Any, updates: Any, *, bad_indices_policy: str = "") -> Any:
        return _scatter(t, x, indices, updates, mode, bad_indices_policy)


for _mode in ("update", "add", "sub", "max", "min"):
    _tensor_scatter(f"TensorScatter{_mode.title()}", _mode)


def _scatter(t: Emit, x: Any, indices: Any, updates: Any, mode: str, policy: str) -> Any:
    if policy not in ("", "DEFAULT", "ERROR"):
        raise PortingError(f"{t.scope!r}: the policy {policy!r} for bad indices is not supported")
    return t.scatter_nd(x, _checked_rows(t, x, indices, "shape"), updates, mode=mode)


@converter("InvertPermutation")
def invert_permutation(t: Emit, x: Any) -> Any:
    return t.invert_permutation(t.tensor(x))


@converter("OneHot")
def one_hot(t: Emit, indices: Any, depth: Dimensions, on: Any, off: Any, *, axis: int = -1) -> Any:
    return t.one_hot(indices, *depth, on, off, axis=axis)


# -- ranges and padding -------------------------------------------------------------------------------------------------


@converter("Range", refuses="floats known only at run time, except sizes")
def range_(t: Emit, start: Any, limit: Any, delta: Any) -> Any:
    dtype = next(operand.dtype for operand in (start, limit, delta))
    if dtype in INTEGERS:
        first, last, step = (_number(t, operand) for operand in (start, limit, delta))
    elif all(isinstance(operand, Constant) for operand in (start, limit, delta)):
        first, last, step = (operand.python() for operand in (start, limit, delta))
    elif dtype in FLOATS and all(_whole(t, operand) is not None for operand in (start, limit, delta)):
        counted = range_(t, *(_whole(t, operand) for operand in (start, limit, delta)))
        return t.cast(counted, dtype=dtype)
    else:
        raise PortingError(f"Range {t.scope!r} counts in {dtype} between bounds that are known only at run time")
    found = t.arange(first, last, step, dtype=dtype)
    counts = isinstance(first, int) and first == 0 and isinstance(step, int) and step == 1
    return shaped(t, found, [t.symbol(last)]) if counts else found


def _whole(t: Emit, operand: Any) -> Any:
    """A float scalar that is certainly integral as an integer: a constant, or a cast size. Otherwise None."""
    if not isinstance(operand, Constant):
        return t.counts.get(operand.ref)
    number = operand.python()
    return constant(int(number), torch.int64) if float(number).is_integer() else None


def _number(t: Emit, operand: Any) -> Any:
    """An integer scalar as an integer or a run-time size, even if its rank is unknown."""
    found = as_dimensions(operand)
    return t.item(operand, index=0) if found[0] is operand and operand.dtype != "size" else found[0]


@converter("LinSpace")
def linspace(t: Emit, start: Any, stop: Any, num: int) -> Any:
    return t.linspace(start, stop, num=num)


@converter("Pad")
def pad(t: Emit, x: Any, paddings: Any) -> Any:
    filling: Any = constant(b"") if x.dtype == "string" else False if x.dtype == "bool" else 0
    return pad_v2(t, x, paddings, filling)


@converter("PadV2")
def pad_v2(t: Emit, x: Any, paddings: Any, value: Any) -> Any:
    sizes = items_of(t, paddings)
    if negative := [size for size in sizes if isinstance(size, int) and size < 0]:
        raise PortingError(
            f"Pad {t.scope!r}: paddings must be non-negative, and one is {negative[0]}: TensorFlow refuses it too"
        )
    return t.pad(x, value, *sizes)


@converter("MirrorPad")
def mirror_pad(t: Emit, x: Any, paddings: np.ndarray, *, mode: str) -> Any:
    return t.mirror_pad(x, paddings=tuple(tuple(pair) for pair in paddings.tolist()), mode=mode)
