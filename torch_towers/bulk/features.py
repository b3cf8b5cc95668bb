"""Converts columns as read from files to a tower's inputs; invalid values are reported by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from torch_towers.bulk.read import plain
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.values import short, value_reader

Problems = dict[int, str]
"""Positions in a block, and why their rows are invalid."""


def feature(column: Any, spec: TensorSpec, *, text: bool) -> tuple[Any, Problems]:
    """Converts one feature's column; `text`: the values are the bytes of CSV fields."""
    if isinstance(column, np.ndarray):
        return cast(Any, column), {}
    read = _reader(spec, text)
    column = singles(column) if _scalar(spec) else column
    kinds = set(map(type, cast("list[Any]", column)))
    if read is None or (not text and kinds <= _kinds(spec)):
        return column, {}
    values: list[Any] = []
    problems: Problems = {}
    for position, value in enumerate(cast("list[Any]", column)):
        try:
            values.append(read(value))
        except ValueError as error:
            values.append(None)
            problems[position] = f"feature {spec.name!r}: {error}"
    return values, problems


def singles(column: Any) -> Any:
    """Unwraps a column of one-element lists, as Vertex writes values; other columns are unchanged."""
    values = cast("list[Any]", column)
    if type(values) is list and set(map(type, values)) == {list} and set(map(len, values)) == {1}:
        return [value[0] for value in values]
    return values


def _kinds(spec: TensorSpec) -> set[Any]:
    """Types of scalars that need no conversion, the common case."""
    if not _scalar(spec):
        return set()
    if spec.dtype == "string":
        return {str, bytes}
    return {float, int} if spec.dtype.startswith(("float", "bfloat")) else {bool} if spec.dtype == "bool" else {int}


def _scalar(spec: TensorSpec) -> bool:
    """True if a row has one value: `[batch]` and `[batch, 1]`."""
    return spec.shape is not None and (len(spec.shape) == 1 or (len(spec.shape) == 2 and spec.shape[1] == 1))


def _reader(spec: TensorSpec, text: bool) -> Callable[[Any], Any] | None:
    """The function that reads one row's value; None where it is taken as it is."""
    item = value_reader(spec)
    if not _scalar(spec):
        return (lambda value: _nested(_parsed(value), item)) if text else (lambda value: _nested(plain(value), item))
    if text:
        return None if spec.dtype == "string" else item
    return lambda value: item(_single(value))


def _parsed(value: bytes) -> Any:
    """Parses a list in a CSV field as JSON."""
    try:
        return plain(json.loads(value))
    except RecursionError as error:
        raise ValueError("the list is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{short(value)} is not a list as JSON writes it") from error


def _single(value: Any) -> Any:
    """Unwraps a one-element list: Vertex writes every value as a list."""
    value = plain(value) if type(value) in (dict, list) else value
    while isinstance(value, list):
        items = cast("list[Any]", value)
        if len(items) != 1:
            raise ValueError(f"it has {len(items)} values; the tower takes one")
        value = items[0]
    return value


def _nested(value: Any, item: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_nested(inner, item) for inner in cast("Sequence[Any]", value)]
    return item(value)


def shape_of(value: Any) -> tuple[int, ...]:
    """The lengths of nested lists: rows of equal lengths form a batch."""
    sizes: list[int] = []
    while isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        sizes.append(len(items))
        if not items:
            break
        value = items[0]
    return tuple(sizes)
