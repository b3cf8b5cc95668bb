"""Sparse tensors: `indices [n, rank]`, `values [n]` and `shape [rank]` as three tensors, like in TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import farmhash
import numpy as np
import siphash24
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.registry import Infer, Number, Spec, Strings, op, returns
from torch_towers.kernels import sparse
from torch_towers.ops.hashing import fingerprint64, hashes_of
from torch_towers.ops.rows import Rows, concat, distinct, filled, ints, place, take
from torch_towers.ops.segments import segment_chunks
from torch_towers.ops.sizes import as_sizes, rank_of

Hashes = np.ndarray[Any, np.dtype[np.uint64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def _strides(shape: Tensor) -> Tensor:
    """Row-major strides: `[2, 3, 4] -> [12, 4, 1]`."""
    return torch.cat([shape.flip(0).cumprod(0).flip(0)[1:], shape.new_ones(min(1, shape.shape[0]))])


def _flat(indices: Tensor, shape: Tensor) -> Tensor:
    """The flat position of each index: `[n, rank] -> [n]`."""
    return (indices * _strides(shape)).sum(1)


def _unflat(flat: Tensor, shape: Tensor) -> Tensor:
    return flat.unsqueeze(1).div(_strides(shape), rounding_mode="floor") % shape.clamp(min=1)


# -- shapes -------------------------------------------------------------------------------------------------------------


def _reshape_spec(indices: Spec, shape: Spec, new_shape: Spec) -> list[Spec]:
    return [("int64", (indices[1][0] if indices[1] else None, rank_of(new_shape))), ("int64", (rank_of(new_shape),))]


@op(stage="early", infer=_reshape_spec)
def sparse_reshape(indices: Tensor, shape: Tensor, new_shape: Tensor) -> tuple[Tensor, Tensor]:
    """The same elements in another shape: `[n, r], [r], [k] -> [n, k], [k]`; one size of `new_shape` may be -1.

    Errors: `InputError` if the numbers of elements differ. Source: tf.raw_ops.SparseReshape.
    """
    wanted, sizes = ints(new_shape), ints(shape)
    size = math.prod(sizes)
    if wanted.count(-1) > 1:
        raise InputError("only one output dimension may be -1")
    if any(axis < -1 for axis in wanted):
        raise InputError(f"size {wanted.index(min(wanted))} must be non-negative, not {min(wanted)}")
    if -1 in wanted:
        rest = math.prod(axis for axis in wanted if axis != -1)
        if rest <= 0:
            raise InputError("reshape cannot infer the missing input size for an empty tensor unless all specified input sizes are non-zero")  # fmt: skip
        wanted[wanted.index(-1)] = size // rest
    if wanted == sizes:
        return indices, shape
    target = torch.tensor(wanted, dtype=torch.int64)
    if math.prod(wanted) != size:
        raise InputError(
            f"Input to reshape is a tensor with {size} dense values, but the requested shape has {math.prod(wanted)}"
        )
    return _unflat(_flat(indices, shape), target), target


def _dense_spec(indices: Spec, values: Spec, default: Spec, *sizes: Spec, **attrs: Any) -> list[Spec]:
    if len(sizes) == 1 and sizes[0][1] != ():
        rank = rank_of(sizes[0])
        return [(values[0], (None,) * rank if isinstance(rank, int) else None)]
    return [(values[0], (None,) * len(sizes))]


@op(stage="early", infer=_dense_spec)
def sparse_to_dense(indices: Tensor, values: Rows, default: Rows, *shape: int, validate: bool) -> Rows:
    """The sparse elements in a dense tensor of `shape`, `default` elsewhere: `[n, rank], [n] -> [*shape]`.

    Errors: `InputError` for indices outside the shape and, if `validate`, for unsorted or repeated ones.
    Source: tf.raw_ops.SparseToDense.
    """
    sizes = as_sizes(shape)
    rows = (
        indices.to(torch.int64).reshape(-1, len(sizes)) if indices.ndim != 1 else indices.to(torch.int64).unsqueeze(1)
    )
    found = sparse.flat(rows, sizes)
    if found is None:
        bounds = torch.tensor(sizes, dtype=torch.int64)
        _check_inside(rows, bounds)
        flat = _flat(rows, bounds)
        found = flat, bool((flat[1:] > flat[:-1]).all())
    flat, ascending = found
    if validate and not ascending:
        at = int((flat[1:] <= flat[:-1]).to(torch.int64).argmax()) + 1
        why = "is repeated" if flat[at] == flat[at - 1] else "is out of order"
        raise InputError(f"indices[{at}] = {ints(rows[at])} {why}")
    out = filled((math.prod(sizes),), default)
    return place(out, flat, values).reshape(tuple(sizes))


def _check_inside(rows: Tensor, bounds: Tensor) -> None:
    outside = ((rows < 0) | (rows >= bounds)).any(1).nonzero()
    if outside.numel():
        at = int(outside[0])
        raise InputError(f"indices[{at}] = {ints(rows[at])} is out of bounds: need 0 <= index < {ints(bounds)}")


# -- rows ---------------------------------------------------------------------------------------------------------------


def _fill_spec(indices: Spec, values: Spec, shape: Spec, default: Spec) -> list[Spec]:
    rank = indices[1][1] if indices[1] else None
    count = indices[1][0] if indices[1] else None
    return [("int64", (None, rank)), (values[0], (None,)), ("bool", (None,)), ("int64", (count,))]


@op(stage="early", infer=_fill_spec)
def sparse_fill_empty_rows(
    indices: Tensor, values: Rows, shape: Tensor, default: Rows
) -> tuple[Tensor, Rows, Tensor, Tensor]:
    """The sparse tensor with `default` in the first column of every empty row.

    `[n, r], [n] -> indices [m, r], values [m]`, a mask of empty rows `[rows]` bool, and the new position of each
    element `[n]`. Errors: `InputError` for a row out of range. Source: tf.raw_ops.SparseFillEmptyRows.
    """
    count = int(shape[0])
    rows = indices[:, 0]
    if count == 0 and rows.numel():
        raise InputError(f"Received SparseTensor with dense_shape[0] = 0 but indices.shape[0] = {rows.numel()}")
    found = sparse.fill_rows(indices, count) if count >= 0 else None
    if found is not None:
        out_indices, position, empty = found
        return out_indices, place(filled((len(out_indices),), default), position, values), empty, position
    position, starts, empty = filled_positions(rows, count, "indices({}, 0)")
    total = int(torch.bincount(rows, minlength=count).clamp(min=1).sum()) if count else 0
    out_indices = torch.zeros((total, indices.shape[1]), dtype=torch.int64)
    out_indices[starts[empty], 0] = empty.nonzero().reshape(-1)
    out_indices[position] = indices
    return out_indices, place(filled((total,), default), position, values), empty, position


def filled_positions(rows: Tensor, count: int, what: str) -> tuple[Tensor, Tensor, Tensor]:
    """The new position of each element, the start of each row and a mask of empty rows, after each row got at least one
    element."""
    outside = ((rows < 0) | (rows >= count)).nonzero()
    if outside.numel():
        at = int(outside[0])
        raise InputError(f"{what.format(at)} is invalid: {int(rows[at])} >= {count}")
    lengths = torch.bincount(rows, minlength=count)
    order = rows.argsort(stable=True)
    within = torch.empty_like(order).scatter(
        0, order, torch.arange(rows.shape[0]) - (lengths.cumsum(0) - lengths)[rows[order]]
    )
    padded = lengths.clamp(min=1)
    starts = padded.cumsum(0) - padded
    return starts[rows] + within, starts, lengths == 0


def _bags_spec(indices: Spec, values: Spec, shape: Spec) -> list[Spec]:
    return [("int64", (None,)), ("int64", (None,)), ("int64", (None,)), ("int64", (None,))]


@op(stage="early", infer=_bags_spec)
def sparse_bags(indices: Tensor, values: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The ids of each row of a sparse tensor, row by row, negative ones left out, and how they are added up.

    `[n, r], [n], [r] -> ids [k]`, and of them what `segment_chunks` gives: `[k], [c], [rows]`. Errors: `InputError` for a row out
    of range. Source: tf.nn.safe_embedding_lookup_sparse.
    """
    count = int(shape[0])
    if count == 0 and len(indices):
        raise InputError(f"Received SparseTensor with dense_shape[0] = 0 but indices.shape[0] = {len(indices)}")
    found = sparse.bags(indices, values, count) if count >= 0 else None
    if found is not None:
        return found
    kept = (values >= 0).nonzero().reshape(-1)
    rows, ids = indices[kept, 0], values[kept].to(torch.int64)
    filled_positions(rows, count, "indices({}, 0)")
    rows, order = rows.sort(stable=True)
    return ids[order], *segment_chunks(order, rows, count)


# -- order, joining and cutting -----------------------------------------------------------------------------------------


def _same_spec(indices: Spec, values: Spec, shape: Spec) -> list[Spec]:
    return [indices, values]


@op(stage="early", infer=_same_spec)
def sparse_reorder(indices: Tensor, values: Rows, shape: Tensor) -> tuple[Tensor, Rows]:
    """The elements in row-major order, stable for equal indices: `[n, rank], [n]`. Source: tf.raw_ops.SparseReorder."""
    _check_inside(indices, shape)
    order = _flat(indices, shape).argsort(stable=True)
    return indices[order], take(values, order)


def _concat_spec(
    indices: tuple[Spec, ...], values: tuple[Spec, ...], shapes: tuple[Spec, ...], *, axis: int
) -> list[Spec]:
    rank = rank_of(shapes[0])
    return [("int64", (None, rank)), (values[0][0], (None,)), ("int64", (rank,))]


@op(stage="early", infer=_concat_spec)
def sparse_concat(
    indices: tuple[Tensor, ...], values: tuple[Rows, ...], shapes: tuple[Tensor, ...], *, axis: int
) -> tuple[Tensor, Rows, Tensor]:
    """Sparse tensors concatenated along `axis`, in row-major order. Errors: `InputError` if another axis differs.

    Source: tf.raw_ops.SparseConcat.
    """
    sizes = torch.stack(list(shapes))
    axis %= sizes.shape[1]
    total = sizes[:, axis].sum()
    others = sizes.index_fill(1, torch.tensor([axis]), 0)
    if bool((others != others[0]).any()):
        raise InputError(f"Concat dim {axis}: the other sizes of {[ints(shape) for shape in shapes]} must be equal")
    out_shape = sizes[0].index_fill(0, torch.tensor([axis]), int(total))
    starts = sizes[:, axis].cumsum(0) - sizes[:, axis]
    column = torch.nn.functional.one_hot(torch.tensor(axis), sizes.shape[1])
    moved = [part + start * column for part, start in zip(indices, starts, strict=True)]
    return *sparse_reorder(torch.cat(moved), concat(values), out_shape), out_shape


def _slice_spec(indices: Spec, values: Spec, shape: Spec, start: Spec, size: Spec) -> list[Spec]:
    rank = rank_of(shape)
    return [("int64", (None, rank)), (values[0], (None,)), ("int64", (rank,))]


@op(stage="early", infer=_slice_spec)
def sparse_slice(
    indices: Tensor, values: Rows, shape: Tensor, start: Tensor, size: Tensor
) -> tuple[Tensor, Rows, Tensor]:
    """The elements in `start .. start + size` of each axis, clamped to the shape.

    Source: tf.raw_ops.SparseSlice.
    """
    inside = ((indices >= start) & (indices < start + size)).all(1).nonzero().reshape(-1)
    return indices[inside] - start, take(values, inside), torch.minimum(size, shape - start).clamp(min=0)


def _split_spec(indices: Spec, values: Spec, shape: Spec, axis: Spec, *, count: int) -> list[Spec]:
    rank = rank_of(shape)
    parts: list[Spec] = [("int64", (None, rank)), (values[0], (None,)), ("int64", (rank,))]
    return [part for part in parts for _ in range(count)]


@op(stage="early", infer=_split_spec)
def sparse_split(indices: Tensor, values: Rows, shape: Tensor, axis: int, *, count: int) -> tuple[Any, ...]:
    """`count` sparse slices along `axis`, the first ones longer by one if it does not divide evenly: indices, values,
    shapes.

    Errors: `InputError` if the axis is shorter than `count`. Source: tf.raw_ops.SparseSplit.
    """
    axis = int(axis) % indices.shape[1]
    length = int(shape[axis])
    if not 0 < count <= length:
        raise InputError(f"num_split must be in the interval (0, {length}], not {count}")
    step, longer = divmod(length, count)
    start, parts = torch.zeros_like(shape), list[tuple[Tensor, Rows, Tensor]]()
    for part in range(count):
        size = shape.clone()
        size[axis] = step + (part < longer)
        parts.append(sparse_slice(indices, values, shape, start, size))
        start = start.clone()
        start[axis] += size[axis]
    return tuple(part[position] for position in range(3) for part in parts)


# -- arithmetic ---------------------------------------------------------------------------------------------------------


def _matmul_spec(indices: Spec, values: Spec, shape: Spec, dense: Spec, **attrs: Any) -> list[Spec]:
    columns = None if dense[1] is None else dense[1][0 if attrs["adjoint_b"] else 1]
    return [(values[0], (None, columns))]


@op(stage="early", infer=_matmul_spec)
def sparse_matmul(
    indices: Tensor, values: Tensor, shape: Tensor, dense: Tensor, *, adjoint_a: bool, adjoint_b: bool
) -> Tensor:
    """A sparse matrix times a dense one, summed in the order of the elements: `[m, k], [k, n] -> [m, n]`.

    Errors: `InputError` for indices out of range and mismatched sizes. Source: tf.raw_ops.SparseTensorDenseMatMul.
    """
    _check_inside(indices.to(torch.int64), shape)
    rows, columns = indices.to(torch.int64).flip(1).unbind(1) if adjoint_a else indices.to(torch.int64).unbind(1)
    height, width = ints(shape.flip(0)) if adjoint_a else ints(shape)
    dense = dense.mH if adjoint_b else dense
    if dense.shape[0] != width:
        raise InputError(
            f"Cannot multiply A and B because inner dimension does not match: {width} vs. {dense.shape[0]}"
        )
    scale = values.conj() if adjoint_a else values
    out = torch.zeros((height, dense.shape[1]), dtype=values.dtype, device=values.device)
    return out.index_add(0, rows, dense[columns] * scale.unsqueeze(1))


def _dense_like(indices: Spec, values: Spec, shape: Spec, dense: Spec) -> list[Spec]:
    return [dense]


@op(stage="early", infer=_dense_like)
def sparse_add_to_dense(indices: Tensor, values: Tensor, shape: Tensor, dense: Tensor) -> Tensor:
    """A dense tensor with the sparse elements added: `[n, rank], [n], [*shape] -> [*shape]`.

    Source: tf.raw_ops.SparseTensorDenseAdd.
    """
    if list(dense.shape) != ints(shape):
        raise InputError(f"Dimensions of a sparse {ints(shape)} and a dense {list(dense.shape)} operand must be equal")
    _check_inside(indices.to(torch.int64), shape)
    flat = _flat(indices.to(torch.int64), shape.to(torch.int64))
    return dense.reshape(-1).index_add(0, flat, values).reshape(dense.shape)


def _values_spec(indices: Spec, values: Spec, shape: Spec, dense: Spec, **attrs: Any) -> list[Spec]:
    return [values]


@op(stage="early", infer=_values_spec)
def sparse_dense_values(
    indices: Tensor, values: Tensor, shape: Tensor, dense: Tensor, *, function: Literal["add", "mul", "div"]
) -> Tensor:
    """Combines each sparse element with the dense element at its index by "add", "mul" or "div": `[n, rank], [n] ->
    [n]`.

    `dense` is broadcast to the sparse shape. Source: tf.raw_ops.SparseDenseCwiseAdd, ...Mul, ...Div.
    """
    _check_inside(indices, shape)
    other = dense.expand(ints(shape))[tuple(indices.unbind(1))]
    if function == "div":
        return torch.div(values, other, rounding_mode=None if values.is_floating_point() else "trunc")
    return values + other if function == "add" else values * other


def _add_spec(
    a: Spec, a_values: Spec, a_shape: Spec, b: Spec, b_values: Spec, b_shape: Spec, threshold: Spec
) -> list[Spec]:
    rank = rank_of(a_shape)
    return [("int64", (None, rank)), (a_values[0], (None,)), ("int64", (rank,))]


@op(stage="early", infer=_add_spec)
def sparse_add(
    a: Tensor, a_values: Tensor, a_shape: Tensor, b: Tensor, b_values: Tensor, b_shape: Tensor, threshold: Number
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of two sparse tensors of equal shape; an element present in both is kept if `threshold <= abs(sum)`.

    Source: tf.raw_ops.SparseAdd.
    """
    if ints(a_shape) != ints(b_shape):
        raise InputError(f"Operands' shapes do not match: {ints(a_shape)} and {ints(b_shape)}")
    flat, place, _ = distinct(_flat(torch.cat([a, b]), a_shape))
    start = -0.0 if a_values.is_floating_point() else 0
    total = torch.full(flat.shape, start, dtype=a_values.dtype).index_add(0, place, torch.cat([a_values, b_values]))
    both = torch.bincount(place, minlength=flat.shape[0]) > 1
    kept = ~both | (total.abs() >= threshold)
    return _unflat(flat[kept], a_shape), total[kept], a_shape


def _reduce_spec(
    indices: Spec, values: Spec, shape: Spec, *, axes: tuple[int, ...], keep_dims: bool, reduction: str
) -> list[Spec]:
    rank = rank_of(shape)
    if not isinstance(rank, int):
        return [(values[0], None)]
    kept = rank if keep_dims else rank - len({axis % rank for axis in axes})
    return [(values[0], (None,) * kept)]


@op(stage="early", infer=_reduce_spec)
def sparse_reduce(
    indices: Tensor,
    values: Tensor,
    shape: Tensor,
    *,
    axes: tuple[int, ...],
    keep_dims: bool,
    reduction: Literal["sum", "max"],
) -> Tensor:
    """The "sum" or "max" of the present elements along `axes`, dense; 0 if there are none.

    Source: tf.raw_ops.SparseReduceSum, tf.raw_ops.SparseReduceMax.
    """
    flat, totals, sizes = _grouped(indices, values, shape, axes, reduction)
    out = torch.zeros(int(sizes.prod()), dtype=values.dtype).index_copy(0, flat, totals)
    return out.reshape(_kept(sizes, axes, keep_dims))


def _reduce_sparse_spec(indices: Spec, values: Spec, shape: Spec, **attrs: Any) -> list[Spec]:
    ((dtype, dense),) = _reduce_spec(indices, values, shape, **attrs)
    rank = None if dense is None else len(dense)
    return [("int64", (None, rank)), (dtype, (None,)), ("int64", (rank,))]


@op(stage="early", infer=_reduce_sparse_spec)
def sparse_reduce_sparse(
    indices: Tensor,
    values: Tensor,
    shape: Tensor,
    *,
    axes: tuple[int, ...],
    keep_dims: bool,
    reduction: Literal["sum", "max"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Like `sparse_reduce`, with a sparse result. Source: tf.raw_ops.SparseReduceSumSparse."""
    flat, totals, sizes = _grouped(indices, values, shape, axes, reduction)
    kept = torch.tensor(_kept(sizes, axes, keep_dims), dtype=torch.int64)
    return _unflat(flat, kept), totals, kept


def _grouped(
    indices: Tensor, values: Tensor, shape: Tensor, axes: tuple[int, ...], reduction: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The flat position of each group in the reduced tensor, its total, and the shape of that tensor with reduced axes
    kept as 1."""
    rank = shape.shape[0]
    wrong = [axis for axis in axes if not -rank <= axis < rank]
    if wrong:
        raise InputError(f"Invalid reduction dimension {wrong[0]}, for input with {rank} dimensions.")
    dropped = torch.tensor(sorted({axis % rank for axis in axes}), dtype=torch.int64)
    sizes = shape.index_fill(0, dropped, 1)
    flat, place, _ = distinct(_flat(indices.index_fill(1, dropped, 0), sizes))
    out = torch.zeros(flat.shape, dtype=values.dtype)
    if reduction == "sum":
        return flat, out.index_add(0, place, values), sizes
    return flat, out.scatter_reduce(0, place, values, "amax", include_self=False), sizes


def _kept(sizes: Tensor, axes: tuple[int, ...], keep_dims: bool) -> list[int]:
    if keep_dims:
        return ints(sizes)
    dropped = {axis % len(sizes) for axis in axes}
    return [size for axis, size in enumerate(ints(sizes)) if axis not in dropped]


# -- crosses ------------------------------------------------------------------------------------------------------------

Column = tuple[Any, Tensor]
"""One feature of a cross: its values in row order, and the row lengths."""

_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_SHIFT = np.uint64(47)
_INT64_MAX = np.uint64((1 << 63) - 1)
_SEPARATOR = b"_X_"


def _cat64(first: Hashes, second: Hashes) -> Hashes:
    """TensorFlow's FingerprintCat64; numpy's uint64 wraps around like C's."""
    mixed = second * _MULTIPLIER
    out = ((first ^ _MULTIPLIER) ^ ((mixed ^ (mixed >> _SHIFT)) * _MULTIPLIER)) * _MULTIPLIER
    out = (out ^ (out >> _SHIFT)) * _MULTIPLIER
    return out ^ (out >> _SHIFT)


def combinations(lengths: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """All combinations of the columns' elements, row by row, the last column varying fastest.

    Row lengths `[rows]` of each column -> combinations per row `[rows]`, the index of each combination in its row
    `[n]`, and for each column the index of the element `[n]`.
    """
    columns: list[Ints] = [length.numpy() for length in lengths]
    counts = np.multiply.reduce(columns)
    rows = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    picked: list[Tensor] = []
    below = np.ones_like(counts)
    for length in reversed(columns):
        start = length.cumsum() - length
        picked.insert(0, torch.from_numpy(start[rows] + place // below[rows] % length[rows]))  # type: ignore[reportUnknownMemberType]
        below = below * length
    return torch.from_numpy(counts), torch.from_numpy(place), picked  # type: ignore[reportUnknownMemberType]


def cross_strings(columns: Sequence[Column], picked: Sequence[Tensor], separator: bytes) -> Strings:
    """The joined elements of each combination; integers in decimal."""
    texts = [_texts(values) for values, _ in columns]
    indices = [ints(index) for index in picked]
    joined = [
        separator.join(parts)
        for parts in zip(*[[text[i] for i in at] for text, at in zip(texts, indices, strict=True)])
    ]
    return strings(joined)


def _texts(values: Rows) -> list[bytes]:
    return [b"%d" % value for value in ints(values)] if isinstance(values, Tensor) else values.tolist()


def fingerprints(values: Rows) -> Hashes:
    """Fingerprint64 of strings; integers unchanged: uint64."""
    if isinstance(values, Tensor):
        return values.to(torch.int64).numpy().view(np.uint64)
    return hashes_of(values, b"", fingerprint64)


def cross_hashes(
    hashes: Sequence[Hashes], lengths: Sequence[Tensor], start: int | None, buckets: int
) -> tuple[Tensor, Tensor, int]:
    """All combinations of the columns' elements, row by row, the last column varying fastest: the index of each in its row
    `[n, 2]`, its bucket `[n]`, and how many the longest row has.

    The bucket is that of the combined hashes of its elements, starting with `start` if given. Hashes `[k]` and row lengths
    `[rows]` of each column.
    """
    limit = buckets if buckets > 0 else int(_INT64_MAX)
    found = sparse.cross(hashes, lengths, start, limit)
    if found is not None:
        return found
    counts, position, picked = combinations(lengths)
    taken = [column[index.numpy()] for column, index in zip(hashes, picked, strict=True)]
    out, rest = (
        (taken[0], taken[1:]) if start is None else (np.full(taken[0].shape, start & (1 << 64) - 1, np.uint64), taken)
    )
    for column in rest:
        out = _cat64(out, column)
    where, longest = _as_sparse(counts, position)
    return where, torch.from_numpy((out % np.uint64(limit)).view(np.int64)), longest  # type: ignore[reportUnknownMemberType]


def _columns(
    indices: tuple[Tensor, ...], values: tuple[Rows, ...], shapes: tuple[Tensor, ...], dense: tuple[Rows, ...]
) -> tuple[list[Column], int]:
    """The columns of a cross, sparse ones first, and the number of rows."""
    sizes = [int(shape[0]) for shape in shapes] + [column.shape[0] for column in dense]
    if len(set(sizes)) > 1:
        raise InputError(f"Expected batch size {sizes[0]} got {next(size for size in sizes if size != sizes[0])}")
    count = sizes[0]
    columns: list[Column] = [
        (column, torch.bincount(index[:, 0], minlength=count)) for index, column in zip(indices, values, strict=True)
    ]
    columns += [(column.reshape(-1), torch.full((count,), column.shape[1])) for column in dense]
    return columns, count


def _as_sparse(counts: Tensor, place: Tensor) -> tuple[Tensor, int]:
    """Indices and longest row of a sparse tensor whose rows are filled from the left."""
    lengths: Ints = counts.numpy()
    where = np.stack([np.repeat(np.arange(len(lengths)), lengths), place.numpy()], 1)
    return torch.from_numpy(where), int(lengths.max(initial=0))  # type: ignore[reportUnknownMemberType]


def _hashed(
    hashes: Sequence[Hashes], columns: Sequence[Column], rows: int, start: int | None, buckets: int
) -> tuple[Tensor, Tensor, Tensor]:
    where, found, longest = cross_hashes(hashes, [lengths for _, lengths in columns], start, buckets)
    return where, found, torch.tensor((rows, longest))


def _cross_spec(dtype: str) -> Infer:
    return returns(("int64", (None, 2)), (dtype, (None,)), ("int64", (2,)))


@op(stage="host", infer=_cross_spec("string"))
def sparse_cross(
    indices: tuple[Tensor, ...],
    values: tuple[Rows, ...],
    shapes: tuple[Tensor, ...],
    dense: tuple[Rows, ...],
    separator: Strings,
) -> tuple[Tensor, Strings, Tensor]:
    """The cross product of all columns, joined to strings: a sparse tensor `[n, 2], [n], [2]`.

    Columns are sparse tensors of rank 2, then dense ones `[rows, k]`, of strings or integers.
    Errors: `InputError` for columns with different numbers of rows. Source: tf.raw_ops.SparseCrossV2.
    """
    columns, count = _columns(indices, values, shapes, dense)
    counts, place, picked = combinations([lengths for _, lengths in columns])
    where, longest = _as_sparse(counts, place)
    return where, cross_strings(columns, picked, separator.item()), torch.tensor((count, longest))


@op(stage="host", infer=_cross_spec("int64"))
def sparse_cross_keyed(
    indices: tuple[Tensor, ...],
    values: tuple[Rows, ...],
    shapes: tuple[Tensor, ...],
    dense: tuple[Rows, ...],
    *,
    buckets: int,
    hash_key: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The cross product of all columns, hashed with `hash_key` into `[0, buckets)`: a sparse tensor.

    Columns as in `sparse_cross`; integers are their own hash. Source: tf.raw_ops.SparseCross with hashed_output.
    """
    columns, count = _columns(indices, values, shapes, dense)
    return _hashed([fingerprints(values) for values, _ in columns], columns, count, hash_key, buckets)


@op(stage="host", infer=_cross_spec("int64"))
def sparse_cross_hashed(
    indices: tuple[Tensor, ...],
    values: tuple[Rows, ...],
    shapes: tuple[Tensor, ...],
    dense: tuple[Rows, ...],
    buckets: int,
    salt: Tensor,
    *,
    strong: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The cross product of all columns, hashed into `[0, buckets)`: a sparse tensor.

    Columns as in `sparse_cross`. `strong` hashes with SipHash under `salt`. Source: tf.raw_ops.SparseCrossHashed, which
    hashes only the first four bytes of an integer.
    """
    columns, count = _columns(indices, values, shapes, dense)
    key = salt.to(torch.int64).numpy().tobytes()
    sparse = len(indices)
    if strong:
        if any(isinstance(column, Tensor) for column in dense):
            raise InputError("a strong hash of dense integers is undefined: TensorFlow's own kernel crashes")
        hashes = [_siphashes(_raw(column), key) for column, _ in columns]
    else:
        hashes = [_farmhashes(_raw(column)) for column, _ in columns[:sparse]]
        hashes += [fingerprints(column) for column, _ in columns[sparse:]]
    return _hashed(hashes, columns, count, None, int(buckets))


def _raw(values: Rows) -> list[bytes]:
    """Strings unchanged; for integers the four bytes that TensorFlow's kernel reads."""
    if not isinstance(values, Tensor):
        return values.tolist()
    return [(value & 0xFFFFFFFF).to_bytes(4, "little") for value in ints(values)]


def _siphashes(items: list[bytes], key: bytes) -> Hashes:
    return np.frombuffer(b"".join(siphash24.siphash24(item, key=key).digest() for item in items), np.dtype("<u8"))  # type: ignore[reportUnknownMemberType]


def _farmhashes(items: list[bytes]) -> Hashes:
    return np.array([farmhash.fingerprint64(item) for item in items], np.uint64)  # type: ignore[arg-type]  # its stub says str; it takes bytes
