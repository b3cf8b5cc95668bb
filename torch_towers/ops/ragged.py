"""Ragged tensors: flat values with row splits, which travel as separate tensors, as in TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.ops.sizes import as_sizes
from torch_towers.registry import Spec, op
from torch_towers.rows import Rows, filled, place, ranges, take


def _to_tensor_spec(values: Spec, default: Spec, partitions: tuple[Spec, ...], *shape: Spec, types: Any) -> list[Spec]:
    if values[1] is None:
        return [(values[0], None)]
    depth = len(types) - (types[0] == "FIRST_DIM_SIZE")
    return [(values[0], ((None,) * (depth + 1)) + tuple(values[1][1:]))]


@op(stage="early", infer=_to_tensor_spec)
def ragged_to_tensor(
    values: Rows, default: Rows, partitions: tuple[Tensor, ...], *shape: int, types: tuple[str, ...]
) -> Rows:
    """The ragged tensor padded with `default`: `[n, ...]` and one partition per ragged axis -> `[rows, width, ..., ...]`.

    `types` says how each partition is written: "ROW_SPLITS", "VALUE_ROWIDS", or "FIRST_DIM_SIZE" before "VALUE_ROWIDS".
    `shape` gives sizes to pad or cut to; -1 (or no shape) is the longest row.
    Errors: `InputError` for partitions that contradict each other. Source: tf.raw_ops.RaggedTensorToTensor.
    """
    counted = types[0] == "FIRST_DIM_SIZE"
    rows = int(partitions[0]) if counted else partitions[0].shape[0] - 1
    tensors, kinds = partitions[counted:], types[counted:]
    if not tensors or kinds[0] not in ("ROW_SPLITS", "VALUE_ROWIDS") or (kinds[0] == "VALUE_ROWIDS" and not counted):
        raise InputError(f"Cannot handle the row partition types {types}")
    wanted = _wanted(shape, len(tensors), values.shape[1:])
    sizes = [rows if wanted[0] < 0 else wanted[0]]
    index = torch.arange(rows)
    index = torch.where(index < sizes[0], index, -1)  # the place of each row in the output, -1 where it is cut off
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


def _wanted(shape: tuple[Any, ...], depth: int, inner: Any) -> list[int]:
    """The asked sizes of the rows and of each ragged axis, -1 where they are open."""
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
    """The row and the column of each element, and the longest row."""
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
    _, lengths = torch.unique_consecutive(partition, return_counts=True)  # a column counts from where its run begins
    return partition, ranges(lengths), int(lengths.max()) if lengths.numel() else 0
