"""Ragged tensors: flat values and row splits, as separate tensors like in TensorFlow."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import AnyDtype, Dtype, dtype_name, torch_dtype
from torch_towers.graph.registry import Spec, Strings, op
from torch_towers.kernels import encodings, sparse
from torch_towers.kernels.fast_path import readable
from torch_towers.ops.rows import Rows, concat, filled, place, ranges, take
from torch_towers.ops.sizes import as_sizes
from torch_towers.ops.sparse import combinations, cross_hashes, cross_strings, filled_positions, fingerprints


def _to_tensor_spec(values: Spec, default: Spec, partitions: tuple[Spec, ...], *shape: Spec, types: Any) -> list[Spec]:
    if values[1] is None:
        return [(values[0], None)]
    depth = len(types) - (types[0] == "FIRST_DIM_SIZE")
    return [(values[0], ((None,) * (depth + 1)) + tuple(values[1][1:]))]


@op(stage="early", infer=_to_tensor_spec)
def ragged_to_tensor(
    values: Rows,
    default: Rows,
    partitions: tuple[Tensor, ...],
    *shape: int,
    types: tuple[Literal["ROW_SPLITS", "VALUE_ROWIDS", "FIRST_DIM_SIZE"], ...],
) -> Rows:
    """The ragged tensor padded with `default`: `[n, ...]` and one partition per ragged axis -> `[rows, width, ...,
    ...]`.

    `types` is the encoding of each partition: "ROW_SPLITS", "VALUE_ROWIDS", or "FIRST_DIM_SIZE" before "VALUE_ROWIDS".
    `shape` gives sizes to pad or truncate to; -1 (or no shape) means the longest row.
    Errors: `InputError` for inconsistent partitions. Source: tf.raw_ops.RaggedTensorToTensor.
    """
    plain = _padded_rows(values, default, partitions, shape, types)
    if plain is not None:
        return plain
    counted = types[0] == "FIRST_DIM_SIZE"
    rows = int(partitions[0]) if counted else partitions[0].shape[0] - 1
    tensors, kinds = partitions[counted:], types[counted:]
    if not tensors or kinds[0] not in ("ROW_SPLITS", "VALUE_ROWIDS") or (kinds[0] == "VALUE_ROWIDS" and not counted):
        raise InputError(f"Cannot handle the row partition types {types}")
    wanted = _wanted(shape, len(tensors), values.shape[1:])
    sizes = [rows if wanted[0] < 0 else wanted[0]]
    index = torch.arange(rows)
    index = torch.where(index < sizes[0], index, -1)  # the output position of each row, -1 if truncated
    for tensor, kind, size in zip(tensors, kinds, wanted[1:], strict=False):
        parent, column, width = _columns(tensor.to(torch.int64), kind, index.shape[0])
        sizes.append(width if size < 0 else size)
        outer = index[parent]
        index = torch.where((outer >= 0) & (column < sizes[-1]), outer * sizes[-1] + column, -1)
    if index.shape[0] != values.shape[0]:
        raise InputError(f"Invalid row partitions: they name {index.shape[0]} values, but there are {values.shape[0]}")
    inner = values.shape[1:]
    kept = (index >= 0).nonzero().reshape(-1)
    out = filled((int(np.prod(sizes)), *inner), default)
    return place(out, index[kept], take(values, kept)).reshape((*sizes, *inner))


_BY_ROW_IDS = ("FIRST_DIM_SIZE", "VALUE_ROWIDS")


def _padded_rows(
    values: Rows, default: Rows, partitions: tuple[Tensor, ...], shape: tuple[Any, ...], types: tuple[str, ...]
) -> Tensor | None:
    """Fast path for integer rows, as tokenizers produce them; None if it does not apply."""
    if not isinstance(values, Tensor) or not isinstance(default, Tensor) or len(shape) not in (0, 2):
        return None
    if values.dtype not in (torch.int32, torch.int64) or values.device.type != "cpu":
        return None
    if values.ndim != 1 or default.numel() != 1 or not all(type(size) is int for size in shape):
        return None
    if not readable(values, default, *partitions):
        return None
    lengths = None
    if types == ("ROW_SPLITS",):
        lengths = _lengths_of_splits(partitions[0].numpy(), len(values))
    elif types == _BY_ROW_IDS:
        lengths = _lengths_of_row_ids(int(partitions[0]), partitions[1].numpy(), len(values))
    rows, width = shape or (-1, -1)
    if lengths is None or rows not in (-1, len(lengths)):
        return None
    items: Any = values.numpy()
    return torch.from_numpy(padded_rows(items, lengths, width, default.item()))  # type: ignore[reportUnknownMemberType]


def _lengths_of_splits(splits: Any, values: int) -> Any:
    """The length of each row; None for no rows and for invalid splits (not from 0, decreasing, or a wrong end)."""
    if len(splits) < 2 or splits[0] != 0 or splits[-1] != values:
        return None
    lengths = splits[1:] - splits[:-1]
    return lengths if len(lengths) == 1 or lengths.min() >= 0 else None


def _lengths_of_row_ids(rows: int, ids: Any, values: int) -> Any:
    """The length of each row; None for no rows and for row ids that decrease or are out of range."""
    if rows < 1 or len(ids) != values or (values and (ids[0] < 0 or ids[-1] >= rows or (ids[1:] < ids[:-1]).any())):
        return None
    return np.bincount(ids, minlength=rows)


def padded_rows(values: Any, lengths: Any, width: int, pad: Any) -> Any:
    """Consecutive rows of the given lengths as a padded matrix: `[n], [rows] -> [rows, width]`.

    `width` -1 means the longest row. Longer rows are truncated, shorter ones padded with `pad`.
    """
    if len(lengths) == 1:  # fast path for a single text
        width = len(values) if width < 0 else width
        row = np.full((1, width), pad, values.dtype)
        row[0, : len(values)] = values[:width]
        return row
    longest = int(lengths.max(initial=0))
    width = longest if width < 0 else width
    found = encodings.padded(values, lengths, width, pad)
    if found is not None:
        return found
    rows = np.full((len(lengths), width), pad, values.dtype)
    kept = np.arange(width) < lengths[:, None]
    if longest > width:
        starts = np.cumsum(lengths) - lengths
        values = values[np.arange(len(values)) - np.repeat(starts, lengths) < width]
    rows[kept] = values
    return rows


def _wanted(shape: tuple[Any, ...], depth: int, inner: Any) -> list[int]:
    """The requested sizes of the rows and of each ragged axis, -1 if open."""
    if not shape or (len(shape) == 1 and isinstance(shape[0], Tensor) and shape[0].ndim == 0):
        return [-1] * (depth + 1)
    sizes = as_sizes(shape)
    if len(sizes) != depth + 1 + len(inner) or any(
        a not in (-1, b) for a, b in zip(sizes[depth + 1 :], inner, strict=True)
    ):
        raise InputError(
            f"the shape {sizes} does not fit values of shape [?, {', '.join(map(str, inner))}] with {depth} ragged axes"
        )
    return sizes[: depth + 1]


def _columns(partition: Tensor, kind: str, rows: int) -> tuple[Tensor, Tensor, int]:
    """Row and column of each element, and the longest row."""
    if kind == "ROW_SPLITS":
        lengths = partition[1:] - partition[:-1]
        if lengths.shape[0] > rows:
            raise InputError(f"Row partition size is greater than output size: {lengths.shape[0]} > {rows}")
        if bool((lengths < 0).any()) or (partition.numel() and int(partition[0]) != 0):
            raise InputError("Invalid row split: splits must start at 0 and must not decrease")
        width = int(lengths.max()) if lengths.numel() else 0
        return torch.repeat_interleave(torch.arange(lengths.shape[0]), lengths), ranges(lengths), width
    if kind != "VALUE_ROWIDS":
        raise InputError(f"Unsupported partition type: {kind}")
    if partition.numel() and not 0 <= int(partition.min()) <= int(partition.max()) < rows:
        raise InputError(f"Got a value_rowid that is not in [0, {rows})")
    starts = torch.cat([partition.new_ones(min(1, len(partition))), partition.diff()]).nonzero().reshape(-1)
    lengths = torch.cat([starts, starts.new_tensor([len(partition)])]).diff()  # columns count from the start of a run
    return partition, ranges(lengths), int(lengths.max()) if lengths.numel() else 0


def _splits_specs(count: int, dtype: str | None) -> list[Spec]:
    return [(dtype, (None,))] * count


def _gather_spec(splits: tuple[Spec, ...], values: Spec, indices: Spec, *, rank: int) -> list[Spec]:
    outer = rank - len(splits)
    shape = None if values[1] is None else (None, *values[1][1:])
    return [*_splits_specs(outer + len(splits), splits[0][0]), (values[0], shape)]


@op(stage="early", infer=_gather_spec)
def ragged_gather(splits: tuple[Tensor, ...], values: Rows, indices: Tensor, *, rank: int) -> tuple[Any, ...]:
    """The ragged rows at `indices`: row splits, outermost first, and values of a ragged tensor of ragged rank `rank`.

    Errors: `InputError` for an index out of range. Source: tf.raw_ops.RaggedGather.
    """
    rows = indices.reshape(-1).to(torch.int64)
    count = splits[0].shape[0] - 1
    outside = ((rows < 0) | (rows >= count)).nonzero()
    if outside.numel():
        raise InputError(f"indices[{int(outside[0])}] = {int(rows[outside[0]])} is not in [0, {count})")
    out: list[Any] = []
    blocks = 1
    for axis in range(indices.ndim - 1):  # the outer axes of `indices` become ragged axes of equal rows
        blocks *= indices.shape[axis]
        out.append((torch.arange(blocks + 1) * indices.shape[axis + 1]).to(splits[0].dtype))
    for split in splits:
        starts, lengths = split[:-1][rows], (split[1:] - split[:-1])[rows]
        out.append(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(split.dtype))
        rows = (starts.repeat_interleave(lengths) + ranges(lengths)).to(torch.int64)
    return (*out, take(values, rows))


def _range_spec(starts: Spec, limits: Spec, deltas: Spec, *, dtype: str) -> list[Spec]:
    return [(dtype, (None,)), (starts[0], (None,))]


@op(stage="early", infer=_range_spec)
def ragged_range(starts: Tensor, limits: Tensor, deltas: Tensor, *, dtype: Dtype) -> tuple[Tensor, Tensor]:
    """One range per row, from `starts` to `limits` by `deltas`: row splits of `dtype` and values; scalars broadcast.

    Errors: `InputError` for a step of 0. Source: tf.raw_ops.RaggedRange.
    """
    sizes = {len(x) for x in (starts, limits, deltas) if x.ndim}
    if len(sizes) > 1:
        raise InputError("starts, limits, and deltas must have the same shape")
    rows = sizes.pop() if sizes else 1
    starts, limits, deltas = (x.expand(rows) for x in (starts, limits, deltas))
    if bool((deltas == 0).any()):
        raise InputError("Requires delta != 0")
    if not starts.is_floating_point():
        return _integer_ranges(starts.numpy(), limits.numpy(), deltas.numpy(), dtype)
    lengths = ((limits - starts) / deltas).ceil().clamp(min=0).to(torch.int64)
    splits = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch_dtype(dtype))
    columns = ranges(lengths)
    longest = int(lengths.max()) if rows else 0
    grid = torch.empty((longest, rows), dtype=starts.dtype)
    for column in range(longest):  # TensorFlow adds the step repeatedly, and rounds each time
        grid[column] = grid[column - 1] + deltas if column else starts
    return splits, grid[columns, torch.arange(rows).repeat_interleave(lengths)]


def _integer_ranges(starts: Any, limits: Any, deltas: Any, dtype: str) -> tuple[Tensor, Tensor]:
    span = limits - starts
    lengths = np.where((span > 0) == (deltas > 0), -(-np.abs(span) // np.abs(deltas)), 0).astype(np.int64)
    splits = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=splits[1:])
    columns: Any = np.arange(int(splits[-1])) - np.repeat(splits[:-1], lengths)
    values: Any = np.repeat(starts, lengths) + columns * np.repeat(deltas, lengths)
    return torch.from_numpy(splits).to(torch_dtype(dtype)), torch.from_numpy(values.astype(starts.dtype))  # type: ignore[reportUnknownMemberType]


def _to_sparse_spec(splits: tuple[Spec, ...], values: Spec) -> list[Spec]:
    rank = None if values[1] is None else len(splits) + len(values[1])
    return [("int64", (None, rank)), (values[0], (None,)), ("int64", (rank,))]


@op(stage="early", infer=_to_sparse_spec)
def ragged_to_sparse(splits: tuple[Tensor, ...], values: Rows) -> tuple[Tensor, Rows, Tensor]:
    """Ragged to sparse: row splits, outermost first, and values `[n, ...]` -> indices, values, shape.

    Errors: `InputError` for inconsistent splits. Source: tf.raw_ops.RaggedTensorToSparse.
    """
    if len(splits) == 1 and values.ndim == 1:
        plain = sparse.of_rows(splits[0], len(values))
        if plain is not None:
            return plain[0], values, plain[1]
    rows = splits[0].shape[0] - 1
    sizes, index = [rows], torch.arange(rows).unsqueeze(1)
    for split in splits:
        parent, column, width = _columns(split.to(torch.int64), "ROW_SPLITS", index.shape[0])
        index = torch.cat([index[parent], column.unsqueeze(1)], 1)
        sizes.append(width)
    if index.shape[0] != values.shape[0]:
        raise InputError(
            f"Final value of ragged splits must match the length of the corresponding ragged values: {index.shape[0]} != {values.shape[0]}"
        )
    inner = list(values.shape[1:])
    if inner:
        cells = torch.cartesian_prod(*[torch.arange(size) for size in inner]).reshape(-1, len(inner))
        index = torch.cat([index.repeat_interleave(cells.shape[0], 0), cells.repeat(index.shape[0], 1)], 1)
    return index, values.reshape(-1), torch.tensor([*sizes, *inner])


def _fill_spec(rowids: Spec, values: Spec, rows: Spec, default: Spec) -> list[Spec]:
    return [("int64", (None,)), (values[0], (None,)), ("bool", (None,)), ("int64", rowids[1])]


@op(stage="early", infer=_fill_spec)
def ragged_fill_empty_rows(
    rowids: Tensor, values: Rows, rows: int, default: Rows
) -> tuple[Tensor, Rows, Tensor, Tensor]:
    """Adds `default` to every empty row: row ids and values, a mask of empty rows, and the new position of each value.

    Errors: `InputError` for a row id out of range. Source: tf.raw_ops.RaggedFillEmptyRows.
    """
    count = int(rows)
    if count == 0 and rowids.numel():
        raise InputError(f"Received SparseTensor with nrows = 0 but value_rowids.shape[0] = {rowids.numel()}")
    found = sparse.fill_rows(rowids[:, None], count) if count >= 0 else None
    if found is not None:
        out, position, empty = found[0].reshape(-1), *found[1:]
        return out, place(filled((len(out),), default), position, values), empty, position
    position, starts, empty = filled_positions(rowids, count, "value_rowids({})")
    total = rowids.numel() + int(empty.sum())
    out = torch.empty(total, dtype=torch.int64)
    out[position] = rowids
    out[starts[empty]] = empty.nonzero().reshape(-1)
    return out, place(filled((total,), default), position, values), empty, position


def _cross_spec(*columns: Any, order: str, splits: str, **attrs: Any) -> list[Spec]:
    return [("int64" if attrs["hashed"] else "string", (None,)), (splits, (None,))]


@op(stage="host", infer=_cross_spec)
def ragged_cross(
    ragged: tuple[Rows, ...],
    row_splits: tuple[Tensor, ...],
    indices: tuple[Tensor, ...],
    values: tuple[Rows, ...],
    shapes: tuple[Tensor, ...],
    dense: tuple[Rows, ...],
    *,
    order: str,
    hashed: bool,
    buckets: int,
    hash_key: int,
    splits: Dtype,
) -> tuple[Any, Tensor]:
    """The cross product of all columns, hashed or joined by "_X_": values and row splits of dtype `splits`.

    `order` has one letter per column: R(agged), S(parse), D(ense).
    Errors: `InputError` for columns with different numbers of rows. Source: tf.raw_ops.RaggedCross.
    """
    sizes = (
        [len(split) - 1 for split in row_splits]
        + [int(shape[0]) for shape in shapes]
        + [len(column) for column in dense]
    )
    if len(set(sizes)) > 1:
        raise InputError("inputs must all have the same batch dimension size.")
    groups = {
        "R": iter(
            [
                (column, (split[1:] - split[:-1]).to(torch.int64))
                for column, split in zip(ragged, row_splits, strict=True)
            ]
        ),
        "S": iter(
            [
                (column, torch.bincount(index[:, 0], minlength=sizes[0]))
                for index, column in zip(indices, values, strict=True)
            ]
        ),
        "D": iter([(column.reshape(-1), torch.full((sizes[0],), column.shape[1])) for column in dense]),
    }
    columns = [next(groups[kind]) for kind in order]
    lengths = [length for _, length in columns]
    counts = torch.stack(lengths).prod(0)
    out_splits = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch_dtype(splits))
    if hashed:
        _, found, _ = cross_hashes([fingerprints(column) for column, _ in columns], lengths, hash_key, buckets)
        return found, out_splits
    _, _, picked = combinations(lengths)
    return cross_strings(columns, picked, b"_X_"), out_splits


# -- variants -----------------------------------------------------------------------------------------------------------
# A tensor of variants is an object array like a string tensor, so ops that move strings move variants too.
# Its elements are tuples: the row splits of a ragged tensor, outermost first, then its values.


def _to_variant_spec(splits: tuple[Spec, ...], values: Spec, *, batched: bool) -> list[Spec]:
    return [("variant", (None,) if batched else ())]


@op(stage="early", infer=_to_variant_spec)
def ragged_to_variant(splits: tuple[Tensor, ...], values: Rows, *, batched: bool) -> Strings:
    """A ragged tensor as variants, one per row if `batched`, else one in all: row splits and values -> `[rows]` or
    `[]`.

    Errors: `InputError` for splits that do not match the values. Source: tf.raw_ops.RaggedTensorToVariant.
    """
    if values.ndim == 0 and (splits or batched):
        raise InputError("Can't unbatch rank-0 tensor.")
    ends = [*(len(split) - 1 for split in splits[1:]), *values.shape[:1]]
    for split, end in zip(splits, ends, strict=False):
        if not len(split) or int(split[0]) or int(split[-1]) != end or bool((split.diff() < 0).any()):
            raise InputError(f"Invalid ragged splits: they must begin at 0, never decrease and end at {end}")
    if not batched:
        return _objects([(*splits, values)]).reshape(())
    if not splits:
        return _objects([(values[row : row + 1].reshape(values.shape[1:]),) for row in range(len(values))])
    return _objects(
        [_row(splits[1:], values, int(a), int(b)) for a, b in zip(splits[0][:-1], splits[0][1:], strict=True)]
    )


def _row(splits: tuple[Tensor, ...], values: Rows, start: int, stop: int) -> tuple[Any, ...]:
    """The rows from `start` to `stop` of a ragged tensor, as a ragged tensor."""
    own: list[Tensor] = []
    for split in splits:
        own.append(split[start : stop + 1] - split[start])
        start, stop = int(split[start]), int(split[stop])
    return (*own, values[start:stop])


def _objects(items: list[Any]) -> Strings:
    array = np.empty(len(items), object)
    for row, item in enumerate(items):
        array[row] = item
    return array


def _from_variant_spec(encoded: Spec, *, inner: int, rank: int, dtype: str, splits: str) -> list[Spec]:
    return [*_splits_specs(rank, splits), (dtype, None)]


@op(stage="early", infer=_from_variant_spec)
def ragged_from_variant(encoded: Strings, *, inner: int, rank: int, dtype: AnyDtype, splits: Dtype) -> tuple[Any, ...]:
    """The ragged tensor of ragged rank `rank` that the variants form, their axes first: `[...] -> row splits and
    values`.

    `inner` is the ragged rank of each variant, -1 for the rest of `rank`.
    Errors: `InputError` for variants of another rank or dtype, or with values of different shapes.
    Source: tf.raw_ops.RaggedTensorFromVariant.
    """
    inner = rank - encoded.ndim if inner < 0 else inner
    if inner < 0 or inner + encoded.ndim != rank:
        raise InputError(
            f"output_ragged_rank must be equal to input_ragged_rank + encoded_ragged.dims(): {rank}, {inner}, {encoded.ndim}"
        )
    items: list[Any] = encoded.reshape(-1).tolist()
    for item in items:
        if item is None or len(item) != inner + 1:
            raise InputError(f"a variant does not hold a ragged tensor of ragged rank {inner}")
        found = [*(dtype_name(split) for split in item[:-1]), dtype_name(item[-1])]
        if found != [splits] * inner + [dtype]:
            raise InputError(f"a variant holds {found}, but row splits of {splits} and values of {dtype} are wanted")
    if encoded.ndim == 0:
        return items[0]
    values = [item[-1] for item in items]
    if any(value.ndim == 0 for value in values):
        raise InputError("Ragged values must have rank >= 1")
    if len({tuple(value.shape[1:]) for value in values}) > 1:
        raise InputError("All flat_values must have compatible shapes")
    kind = torch_dtype(splits)
    outer = [  # TensorFlow writes as many splits as the axis is long, ignoring the axes before it
        torch.arange(size + 1, dtype=kind) * step for size, step in zip(encoded.shape, encoded.shape[1:], strict=False)
    ]
    nested = [torch.cat([torch.zeros(1, dtype=kind), *(item[axis][1:] for item in items)]) for axis in range(inner)]
    rows = torch.tensor([len(item[0]) - bool(inner) for item in items], dtype=torch.int64)
    for axis in range(inner):
        ends = torch.tensor([int(item[axis][-1]) for item in items], dtype=torch.int64)
        counts = torch.tensor([len(item[axis]) - 1 for item in items], dtype=torch.int64)
        nested[axis][1:] += (ends.cumsum(0) - ends).repeat_interleave(counts).to(kind)
    first = torch.cat([torch.zeros(1, dtype=torch.int64), rows.cumsum(0)]).to(kind)
    empty: Rows = np.empty(0, object) if dtype == "string" else torch.empty(0, dtype=torch_dtype(dtype))
    return (*outer, first, *nested, concat(values) if values else empty)
