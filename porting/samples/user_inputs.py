"""Reads a user's own inputs for the comparison, from `.npz` columns or JSON lines."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from porting.errors import PortingError
from torch_towers.errors import InputError
from torch_towers.formats.npz import load_arrays, to_numpy
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.reader import read_column


def read_examples(path: Path, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray[Any, Any]]:
    """One batch for the inputs `specs`, from a `.npz` file of columns, or from one JSON object a line, keyed by
    feature.

    Features that the tower does not take are ignored. Errors: `PortingError` or `InputError`, naming the file, the line
    and the feature.
    """
    if not path.is_file():
        raise PortingError(f"{path}: no such file; --inputs takes a .npz file of columns or a file of JSON lines")
    columns: dict[str, Any] = load_arrays(path) if zipfile.is_zipfile(path) else _columns(path)
    batch: dict[str, np.ndarray[Any, Any]] = {}
    for spec in specs:
        if spec.name not in columns:
            raise PortingError(f"{path}: no column {spec.name!r}, which the tower takes; it has {', '.join(columns)}")
        batch[spec.name] = _array(columns[spec.name], spec, path)
    return batch


def _columns(path: Path) -> dict[str, list[Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                at = isinstance(error, json.JSONDecodeError)
                why = f"{error.msg} at column {error.colno}" if at else str(error)
                raise PortingError(
                    f"{path}, line {number}: not JSON ({why}); --inputs takes a .npz file of columns or JSON lines"
                ) from error
            if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
                raise PortingError(
                    f"{path}, line {number}: expected an object with the same features as the first line"
                )
            rows.append(row)
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _array(column: Any, spec: TensorSpec, path: Path) -> np.ndarray[Any, Any]:
    try:
        array = to_numpy(read_column(column, replace(spec, shape=None)))
    except InputError as error:
        raise PortingError(f"{path}: {error}") from error
    rank = None if spec.shape is None else len(spec.shape)
    if rank == array.ndim + 1 and spec.shape is not None and spec.shape[-1] == 1:
        array = array[..., None]
    if rank == array.ndim - 1 and array.shape[-1] == 1:
        array = array[..., 0]
    return array
