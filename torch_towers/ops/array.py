"""Moving data: shapes, slices, joins and gathers, for tensors and strings (numpy object arrays of bytes)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Number, Spec, Strings, elementwise, op, returns
from torch_towers.kernels import encodings, sparse
from torch_towers.kernels.fast_path import readable
from torch_towers.ops.sizes import as_sizes

Array = Tensor | Strings


def object_array(value: Any) -> Strings:
    """Restores an object array where numpy returns a bare element: a string scalar is a rank-0 array of bytes."""
    return np.asarray(value, dtype=object)


def _index(x: Array, index: Any) -> Array:
    return x[index] if isinstance(x, Tensor) else x[(*index, ...)]  # the ellipsis keeps a single object an array


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front. `IndexError` in torch's own words where there is none such."""
    if not -rank <= axis < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {axis})")
    return axis % rank


def _along(axis: int, rank: int, item: Any) -> tuple[Any, ...]:
    """An index that is `item` at `axis`, and a full slice of every other axis."""
    axis = axis_of(axis, rank)
    return (slice(None),) * axis + (item,)


# -- shapes -------------------------------------------------------------------------------------------------------------


@op()
def reshape(x: Tensor | Strings, *sizes: int) -> Tensor | Strings:
    """`x` in another shape; one size may be -1. Source: tf.raw_ops.Reshape."""
    wanted = as_sizes(sizes)
    if isinstance(x, Tensor) and not readable(x):
        return x.reshape(wanted)
    try:
        return x.reshape(wanted)
    except (RuntimeError, ValueError) as error:
        count = math.prod(x.shape)
        raise InputError(
            f"Input to reshape is a tensor with {count} values, but the requested shape is {wanted}"
        ) from error


@op()
def transpose(x: Tensor | Strings, *, perm: tuple[int, ...]) -> Tensor | Strings:
    """`x` with its axes in the order `perm`. Source: tf.raw_ops.Transpose."""
    return x.permute(perm) if isinstance(x, Tensor) else x.transpose(perm)


@op()
def split_last(x: Tensor, *, sizes: tuple[int, ...]) -> Tensor:
    """Splits the last axis: `[..., heads * dim] -> [..., heads, dim]`. Source: Keras EinsumDense."""
    return x.reshape(*x.shape[:-1], *sizes)


@op()
def join_last(x: Tensor, *, count: int) -> Tensor:
    """Merges the last `count` axes: `[..., heads, dim] -> [..., heads * dim]`. Source: Keras EinsumDense."""
    return torch.flatten(x, -count)


@op()
def unsqueeze(x: Tensor | Strings, *, axis: int) -> Tensor | Strings:
    """A new axis of length 1: `[...] -> [..., 1, ...]`. Source: tf.raw_ops.ExpandDims."""
    return x.unsqueeze(axis) if isinstance(x, Tensor) else np.expand_dims(x, axis)


def _squeezed(x: Spec, *, axes: tuple[int, ...]) -> list[Spec]:
    if x[1] is None:
        return [x]
    gone = {axis_of(axis, len(x[1])) for axis in axes}
    return [(x[0], tuple(size for i, size in enumerate(x[1]) if i not in gone))]


@op(infer=_squeezed)
def squeeze(x: Tensor | Strings, *, axes: tuple[int, ...]) -> Tensor | Strings:
    """Removes `axes`, which must have length 1. Errors: `InputError` if one does not. Source: tf.raw_ops.Squeeze."""
    for axis in axes:
        if x.shape[axis] != 1:
            raise InputError(f"Can not squeeze dim[{axis}], expected a dimension of 1, got {x.shape[axis]}")
    return x.squeeze(axes) if isinstance(x, Tensor) else object_array(x.squeeze(axis=axes))


def _any_rank(x: Spec) -> list[Spec]:
    return [(x[0], None)]


@op(infer=_any_rank)
def squeeze_all(x: Tensor | Strings) -> Tensor | Strings:
    """Removes all axes of length 1. Source: tf.raw_ops.Squeeze without squeeze_dims."""
    return x.squeeze() if isinstance(x, Tensor) else object_array(x.squeeze())


@op()
def broadcast_to(x: Tensor | Strings, *sizes: int) -> Tensor | Strings:
    """`x` broadcast to a shape. Source: tf.raw_ops.BroadcastTo, tf.raw_ops.Fill."""
    wanted = as_sizes(sizes)
    return x.expand(wanted) if isinstance(x, Tensor) else np.broadcast_to(x, wanted)


@op()
def tile(x: Tensor | Strings, *multiples: int) -> Tensor | Strings:
    """`x` repeated along each axis. Source: tf.raw_ops.Tile."""
    times = as_sizes(multiples)
    return x.repeat(times) if isinstance(x, Tensor) else object_array(np.tile(x, times))


@op()
def repeat_each(x: Tensor, *, count: int, axis: int) -> Tensor:
    """Repeats each element of an axis `count` times: `[..., n, ...] -> [..., n * count, ...]`. Source: tf.repeat, Keras
    GroupQueryAttention."""
    return x.repeat_interleave(count, axis)


@op()
def zeros_like(x: Tensor | Strings) -> Tensor | Strings:
    """Zeros, or empty strings, in the shape of `x`. Source: tf.raw_ops.ZerosLike."""
    return torch.zeros_like(x) if isinstance(x, Tensor) else np.full(x.shape, b"", dtype=object)


@op()
def ones_like(x: Tensor) -> Tensor:
    """Ones in the shape of `x`. Source: tf.raw_ops.OnesLike."""
    return torch.ones_like(x)


# -- joining and splitting ----------------------------------------------------------------------------------------------


@op()
def concat(*xs: Tensor | Strings, axis: int) -> Tensor | Strings:
    """Tensors concatenated along an axis. Source: tf.raw_ops.ConcatV2."""
    if isinstance(xs[0], Tensor):
        return torch.cat(xs, axis)  # type: ignore[arg-type]
    return object_array(np.concatenate(xs, axis))  # type: ignore[arg-type]


@op()
def stack(*xs: Tensor | Strings, axis: int) -> Tensor | Strings:
    """Tensors of equal shape stacked along a new axis. Source: tf.raw_ops.Pack."""
    if isinstance(xs[0], Tensor):
        return torch.stack(xs, axis)  # type: ignore[arg-type]
    return object_array(np.stack(xs, axis))  # type: ignore[arg-type]


def _unstacked(x: Spec, *, axis: int, num: int) -> list[Spec]:
    dtype, shape = x
    if shape is None:
        return [(dtype, None)] * num
    axis = axis_of(axis, len(shape))
    return [(dtype, (*shape[:axis], *shape[axis + 1 :]))] * num


@op(infer=_unstacked)
def unstack(x: Tensor | Strings, *, axis: int, num: int) -> tuple[Tensor | Strings, ...]:
    """The slices of `x` along an axis, which has length `num`. Source: tf.raw_ops.Unpack."""
    if x.shape[axis] != num:
        raise InputError(f"Input shape axis {axis} must equal {num}, got shape {list(x.shape)}")
    return tuple(_index(x, _along(axis, x.ndim, i)) for i in range(num))


def _parts(x: Spec, *, axis: int, lengths: tuple[int, ...]) -> list[Spec]:
    dtype, shape = x
    if shape is None:
        return [(dtype, None)] * len(lengths)
    axis = axis_of(axis, len(shape))
    whole = shape[axis]
    rest = whole - sum(n for n in lengths if n >= 0) if isinstance(whole, int) else None
    return [(dtype, (*shape[:axis], n if n >= 0 else rest, *shape[axis + 1 :])) for n in lengths]


@op(infer=_parts)
def split_sizes(x: Tensor | Strings, *, axis: int, lengths: tuple[int, ...]) -> tuple[Tensor | Strings, ...]:
    """Consecutive parts of `x` along an axis; one length may be -1, for the rest. Source: tf.raw_ops.SplitV."""
    rest = x.shape[axis] - sum(n for n in lengths if n >= 0)
    if rest < 0 or (rest and -1 not in lengths):
        raise InputError(f"cannot split an axis of length {x.shape[axis]} into parts of {list(lengths)}")
    full = [rest if n < 0 else n for n in lengths]
    starts = [sum(full[:i]) for i in range(len(full))]
    return tuple(
        _index(x, _along(axis, x.ndim, slice(start, start + n))) for start, n in zip(starts, full, strict=True)
    )


def _equal_parts(x: Spec, *, axis: int, num: int) -> list[Spec]:
    dtype, shape = x
    if shape is None:
        return [(dtype, None)] * num
    axis = axis_of(axis, len(shape))
    whole = shape[axis]
    return [(dtype, (*shape[:axis], whole // num if isinstance(whole, int) else None, *shape[axis + 1 :]))] * num


@op(infer=_equal_parts)
def chunk(x: Tensor | Strings, *, axis: int, num: int) -> tuple[Tensor | Strings, ...]:
    """`num` equal parts of `x` along an axis. Source: tf.raw_ops.Split."""
    whole = x.shape[axis]
    if whole % num:
        raise InputError(f"Number of ways to split should evenly divide the split dimension, but got {whole} / {num}")
    part = whole // num
    return tuple(_index(x, _along(axis, x.ndim, slice(i * part, (i + 1) * part))) for i in range(num))


# -- slices -------------------------------------------------------------------------------------------------------------


def _cut(x: Spec, *bounds: Spec, axis: int, **attrs: Any) -> list[Spec]:
    """A slice's length depends on bounds that a spec does not contain; everything else is unchanged."""
    return [(x[0], None if x[1] is None else tuple(None if i == axis else size for i, size in enumerate(x[1])))]


def _without(x: Spec, index: Spec, *, axis: int) -> list[Spec]:
    return [(x[0], None if x[1] is None else tuple(size for i, size in enumerate(x[1]) if i != axis))]


@op(name="slice", infer=_cut)
def slice_axis(
    x: Tensor | Strings, start: int | None, stop: int | None, *, axis: int, step: int = 1
) -> Tensor | Strings:
    """`x[..., start:stop:step, ...]` with Python's rules for negative and out-of-range bounds; a negative step counts
    backwards.

    None is an open bound. Source: tf.raw_ops.StridedSlice.
    """
    span = slice(start, stop, step)
    if step > 0 or not isinstance(x, Tensor):
        return _index(x, _along(axis, x.ndim, span))
    taken = range(x.shape[axis])[span]  # torch has no negative steps
    low, high = (taken[-1], taken[0] + 1) if len(taken) else (0, 0)
    return x[_along(axis, x.ndim, slice(low, high, -step))].flip(axis)


@op(infer=_cut)
def narrow(x: Tensor | Strings, start: int, length: int, *, axis: int) -> Tensor | Strings:
    """`length` elements of an axis from `start`; -1 means up to the end. Errors: `InputError` if they are out of range.

    Source: tf.raw_ops.Slice.
    """
    whole = x.shape[axis]
    if length == -1:
        length = whole - start
    if not 0 <= start <= whole:
        raise InputError(f"Expected begin[{axis}] in [0, {whole}], but got {start}")
    if not 0 <= length <= whole - start:
        raise InputError(f"Expected size[{axis}] in [0, {whole - start}], but got {length}")
    return _index(x, _along(axis, x.ndim, slice(start, start + length)))


@op(infer=_without)
def select(x: Tensor | Strings, index: int, *, axis: int) -> Tensor | Strings:
    """One element of an axis: `[..., n, ...] -> [..., ...]`. Source: tf.raw_ops.StridedSlice with a
    shrink_axis_mask."""
    if not -x.shape[axis] <= index < x.shape[axis]:
        raise InputError(f"slice index {index} of dimension {axis} out of bounds.")
    return _index(x, _along(axis, x.ndim, index))


@op(stage="early", infer=returns(("size", ())))
def item(x: Tensor, *, index: int) -> int:
    """One element of an integer tensor, by flat index, as a size."""
    return int(x.reshape(-1)[index])


@op()
def flip(x: Tensor | Strings, *, axes: tuple[int, ...]) -> Tensor | Strings:
    """`x` reversed along some axes. Source: tf.raw_ops.ReverseV2."""
    return torch.flip(x, axes) if isinstance(x, Tensor) else np.flip(x, axes)


@op()
def roll(x: Tensor | Strings, *, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Tensor | Strings:
    """`x` rotated along some axes. Source: tf.raw_ops.Roll."""
    return torch.roll(x, shifts, axes) if isinstance(x, Tensor) else np.roll(x, shifts, axes)


def _rolled(x: Spec, *shifts: Spec, axes: tuple[int, ...]) -> list[Spec]:
    return [x]


@op(infer=_rolled)
def roll_by(x: Tensor | Strings, *shifts: int, axes: tuple[int, ...]) -> Tensor | Strings:
    """`x` rotated along some axes by shifts known at run time. Source: tf.raw_ops.Roll."""
    return roll(x, shifts=tuple(as_sizes(shifts)), axes=axes)


@op()
def reverse_sequence(x: Tensor, lengths: Tensor, *, axis: int, batch_axis: int) -> Tensor:
    """Reverses the first `lengths[i]` steps of each row. Source: tf.raw_ops.ReverseSequence."""
    steps = torch.arange(x.shape[axis], device=x.device)
    counts = lengths.to(torch.int64).unsqueeze(1)
    order = torch.where(steps < counts, counts - 1 - steps, steps)
    rows = torch.arange(x.shape[batch_axis], device=x.device).unsqueeze(1)
    moved = x.movedim((batch_axis, axis), (0, 1))
    return moved[rows, order].movedim((0, 1), (batch_axis, axis))


# -- gathering and scattering -------------------------------------------------------------------------------------------


def _integers(x: Tensor) -> Any:
    """An integer tensor as (nested lists of) Python integers."""
    return x.tolist()  # type: ignore[reportUnknownMemberType]


def _first(outside: Tensor) -> tuple[tuple[int, ...], str]:
    """The position of the first invalid index, and its name in TensorFlow's message."""
    where: tuple[int, ...] = tuple(_integers(outside.nonzero()[0]))
    return where, f"indices[{','.join(map(str, where))}]" if where else "indices"


@op(stage="early", infer=elementwise())
def in_range(indices: Tensor, limit: int) -> Tensor:
    """`indices` unchanged. Errors: `InputError` for an index outside `[0, limit)`, which TensorFlow's CPU kernel
    refuses.

    Source: tf.raw_ops.GatherV2.
    """
    if torch.compiler.is_compiling():
        if _assert_async is not None and not indices.is_meta:
            _assert_async(~((indices < 0) | (indices >= limit)).any(), f"an index is not in [0, {limit})")
        return indices
    if not readable(indices) or sparse.are_below(indices, limit):
        return indices
    outside = (indices < 0) | (indices >= limit)
    if bool(outside.any()):
        where, position = _first(outside)
        raise InputError(f"{position} = {indices[where].item()} is not in [0, {limit})")
    return indices


# If torch lacks it, a compiled gather checks the range itself, with torch's message.
_assert_async: Any = getattr(torch, "_assert_async", None)


@op(stage="early", infer=elementwise())
def in_shape(indices: Tensor, *sizes: int, what: str) -> Tensor:
    """`indices` unchanged: `[..., k] -> [..., k]`. Errors: `InputError` for a row that is out of bounds of the shape.

    Source: tf.raw_ops.GatherNd, tf.raw_ops.ScatterNd.
    """
    if not readable(indices):
        return indices
    shape = as_sizes(sizes)
    if sparse.are_inside(indices, shape):
        return indices
    limits = torch.tensor(shape[: indices.shape[-1]], dtype=torch.int64, device=indices.device)
    outside = ((indices < 0) | (indices >= limits)).any(-1)
    if bool(outside.any()):
        where, position = _first(outside)
        raise InputError(
            f"{position} = {_integers(indices[where])} does not index into {what} [{','.join(map(str, shape))}]"
        )
    return indices


@op()
def gather(x: Tensor | Strings, indices: Tensor, *, axis: int = 0, batch_dims: int = 0) -> Tensor | Strings:
    """The elements of an axis at `indices`: `[b..., o..., n, i...], [b..., j...] -> [b..., o..., j..., i...]`.

    Source: tf.raw_ops.GatherV2.
    """
    axis = axis_of(axis, x.ndim)
    if batch_dims:
        return _gather_batched(x, indices, axis, batch_dims)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if isinstance(x, Tensor):
        return x.index_select(axis, _as_index(indices).reshape(-1)).reshape(shape)
    return object_array(np.take(x, indices.numpy(), axis))


def _as_index(indices: Tensor) -> Tensor:
    return indices if indices.dtype in (torch.int32, torch.int64) else indices.to(torch.int64)


def _gather_batched(x: Array, indices: Tensor, axis: int, batch_dims: int) -> Array:
    grids: list[Tensor] = []
    for i in range(batch_dims):
        steps = torch.arange(x.shape[i], device=indices.device)
        grids.append(steps.reshape([-1 if j == i else 1 for j in range(indices.ndim)]))
    outer, inner = axis - batch_dims, indices.ndim - batch_dims
    if isinstance(x, Tensor):
        taken: Any = x.movedim(axis, batch_dims)[(*grids, indices.to(torch.int64))]
    else:
        taken = object_array(np.moveaxis(x, axis, batch_dims)[tuple(grid.numpy() for grid in (*grids, indices))])
    if not outer or not inner:
        return taken
    source = [batch_dims + i for i in range(inner)]
    target = [batch_dims + outer + i for i in range(inner)]
    return taken.movedim(source, target) if isinstance(x, Tensor) else np.moveaxis(taken, source, target)


@op()
def gather_nd(x: Tensor | Strings, indices: Tensor) -> Tensor | Strings:
    """Slices of `x` at rows of indices: `[n1, ..., nk, i...], [j..., k] -> [j..., i...]`. Source:
    tf.raw_ops.GatherNd."""
    if not isinstance(x, Tensor) and indices.shape[-1] == x.ndim:  # elements, as of a sparse tensor
        flat = sparse.flat(indices.reshape(-1, x.ndim), list(x.shape))
        if flat is not None:
            return x.reshape(-1)[flat[0].numpy()].reshape(indices.shape[:-1])
    index = indices.to(torch.int64).unbind(-1)
    if not index:  # rows of zero indices: each selects all of x
        return broadcast_to(x, *indices.shape[:-1], *x.shape)
    return _index(x, index if isinstance(x, Tensor) else tuple(part.numpy() for part in index))


def _flat_rows(indices: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of k indices as flat positions in the first k axes: `[..., k] -> [n]`."""
    position = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for i in range(indices.shape[-1]):
        position = position * sizes[i] + indices[..., i]
    return position.reshape(-1)


@op()
def scatter_nd(
    x: Tensor | Strings,
    indices: Tensor,
    updates: Tensor | Strings,
    *,
    mode: Literal["update", "add", "sub", "max", "min"],
) -> Tensor | Strings:
    """`x` with `updates` at rows of indices: `[n1, ..., nk, i...], [j..., k], [j..., i...] -> [n1, ..., nk, i...]`.

    `mode` is "update" (the last of equal rows wins), "add", "sub", "max" or "min".
    Source: tf.raw_ops.TensorScatterUpdate, TensorScatterAdd, TensorScatterSub, TensorScatterMax, TensorScatterMin,
    ScatterNd.
    """
    if not isinstance(x, Tensor) or not isinstance(updates, Tensor):
        return _scatter_strings(x, indices, updates)  # type: ignore[arg-type]
    k = indices.shape[-1]
    inner = x.shape[k:]
    rows = _flat_rows(indices, x.shape)
    flat = x.reshape(math.prod(x.shape[:k]), *inner)
    values = updates.reshape(rows.shape[0], *inner)
    if mode == "update":
        return flat.index_copy(0, rows, values).reshape(x.shape)
    if mode in ("add", "sub"):
        if x.dtype == torch.bool:
            return flat.to(torch.uint8).index_add(0, rows, values.to(torch.uint8)).to(torch.bool).reshape(x.shape)
        return flat.index_add(0, rows, values, alpha=-1 if mode == "sub" else 1).reshape(x.shape)
    index = rows.reshape(-1, *[1] * len(inner)).expand_as(values)
    return flat.scatter_reduce(0, index, values, f"a{mode}").reshape(x.shape)


def _scatter_strings(x: Strings, indices: Tensor, updates: Strings) -> Strings:
    result = x.copy()
    rows: list[list[int]] = _integers(indices.reshape(-1, indices.shape[-1]))
    values = updates.reshape(len(rows), *x.shape[indices.shape[-1] :])
    for row, value in zip(rows, values, strict=True):
        result[tuple(row)] = value
    return result


@op()
def invert_permutation(x: Tensor) -> Tensor:
    """`y` with `y[x[i]] = i`: `[n] -> [n]`. Source: tf.raw_ops.InvertPermutation."""
    steps = torch.arange(x.shape[0], dtype=x.dtype, device=x.device)
    return torch.zeros_like(x).scatter(0, x.to(torch.int64), steps)


@op()
def one_hot(indices: Tensor, depth: int, on: Tensor, off: Tensor, *, axis: int) -> Tensor:
    """`on` at each index along a new axis of length `depth`, `off` elsewhere; all `off` for an index out of range.

    Source: tf.raw_ops.OneHot.
    """
    if axis in (-1, indices.ndim):
        found = encodings.one_hot(indices, depth, on, off)
        if found is not None:
            return found
    places = indices.unsqueeze(axis)
    classes = torch.arange(depth, device=indices.device).reshape([-1] + [1] * (indices.ndim - axis % places.ndim))
    return torch.where(places == classes, on, off)


# -- ranges -------------------------------------------------------------------------------------------------------------


def _counted(start: Spec, limit: Spec, step: Spec, *, dtype: str) -> list[Spec]:
    return [(dtype, (None,))]


@op(infer=_counted)
def arange(start: int, limit: int, step: int, *, dtype: Dtype, device: torch.device | None = None) -> Tensor:
    """Numbers from `start` to `limit`, exclusive: `[n]`. Source: tf.raw_ops.Range."""
    kind = torch_dtype(dtype)
    if step == 0:
        raise InputError("Requires delta != 0: 0")
    if not kind.is_floating_point:
        if (limit - start) * step < 0:
            raise InputError(f"Requires start {'<=' if step > 0 else '>='} limit: {start}/{limit}")
        return torch.arange(start, limit, step, dtype=kind, device=device)
    count = max(0, math.ceil(abs((limit - start) / step)))
    return start + torch.arange(count, dtype=kind, device=device) * step


def _spaced(start: Spec, stop: Spec, *, num: int) -> list[Spec]:
    return [(start[0], (num,))]


@op(infer=_spaced)
def linspace(start: Tensor, stop: Tensor, *, num: int) -> Tensor:
    """`num` evenly spaced numbers from `start` to `stop`: `[], [] -> [num]`. Source: tf.raw_ops.LinSpace."""
    if num == 1:
        return start.reshape(1)
    step = (stop - start) / (num - 1)
    points = start + step * torch.arange(num, dtype=start.dtype, device=start.device)
    return torch.cat([points[:-1], stop.reshape(1)])


# -- padding ------------------------------------------------------------------------------------------------------------


@op()
def pad(x: Tensor | Strings, value: Number | Strings, *paddings: int) -> Tensor | Strings:
    """`x` padded with `value`; `paddings` are before and after for each axis in turn. Source: tf.raw_ops.PadV2."""
    pairs = [(paddings[i], paddings[i + 1]) for i in range(0, len(paddings), 2)]
    if not isinstance(x, Tensor) or readable(x):
        for before, after in pairs:
            if before < 0 or after < 0:  # torch and numpy would crop
                raise InputError(f"Paddings must be non-negative: {before} {after}")
    if not isinstance(x, Tensor):
        return object_array(np.pad(x, pairs, constant_values=value.item() if isinstance(value, np.ndarray) else value))
    assert not isinstance(value, np.ndarray)
    reverse = [size for i in range(len(paddings) - 2, -1, -2) for size in paddings[i : i + 2]]
    if isinstance(value, Tensor):
        return torch.where(F.pad(torch.ones_like(x, dtype=torch.bool), reverse), F.pad(x, reverse), value)
    return F.pad(x, reverse, value=value)


@op()
def mirror_pad(x: Tensor, *, paddings: tuple[tuple[int, int], ...], mode: Literal["REFLECT", "SYMMETRIC"]) -> Tensor:
    """`x` padded with its reflection, without the edge ("REFLECT") or with it ("SYMMETRIC"). Source:
    tf.raw_ops.MirrorPad."""
    for axis, (before, after) in enumerate(paddings):
        n = x.shape[axis]
        edge = 1 if mode == "REFLECT" else 0
        head = torch.arange(before - 1 + edge, edge - 1, -1, device=x.device)
        body = torch.arange(n, device=x.device)
        tail = torch.arange(n - 1 - edge, n - 1 - edge - after, -1, device=x.device)
        x = x.index_select(axis, torch.cat([head, body, tail]))
    return x
