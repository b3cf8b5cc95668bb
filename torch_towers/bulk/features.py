"""Features: columns as they were read, as what a tower takes; values that cannot be are named by their row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from torch_towers.bulk.read import MISSING, plain
from torch_towers.graph.graph import TensorSpec

Problems = dict[int, str]
"""Positions in a block, and why their rows cannot be used."""


def feature(column: Any, spec: TensorSpec, *, text: bool) -> tuple[Any, Problems]:
    """One feature's column; `text`: the values are the bytes of a CSV file's fields."""
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
    """A column of lists of one value each, as Vertex writes every value, as these values; any other column as it is."""
    values = cast("list[Any]", column)
    if type(values) is list and set(map(type, values)) == {list} and set(map(len, values)) == {1}:
        return [value[0] for value in values]
    return values


def _kinds(spec: TensorSpec) -> set[Any]:
    """Types of scalar values that need no reading: most columns are of one of them."""
    if not _scalar(spec):
        return set()
    if spec.dtype == "string":
        return {str, bytes}
    return {float, int} if spec.dtype.startswith(("float", "bfloat")) else {bool} if spec.dtype == "bool" else {int}


def _scalar(spec: TensorSpec) -> bool:
    """True where a row has one value: `[batch]` and `[batch, 1]`."""
    return spec.shape is not None and (len(spec.shape) == 1 or (len(spec.shape) == 2 and spec.shape[1] == 1))


def _reader(spec: TensorSpec, text: bool) -> Callable[[Any], Any] | None:
    """The function that reads one row's value; None where it is taken as it is."""
    item = _item_reader(spec)
    if not _scalar(spec):
        return (lambda value: _nested(_parsed(value), item)) if text else (lambda value: _nested(plain(value), item))
    if text:
        return None if spec.dtype == "string" else item
    return lambda value: item(_single(value))


def _parsed(value: bytes) -> Any:
    """A list in a field of CSV is JSON."""
    try:
        return plain(json.loads(value))
    except RecursionError as error:
        raise ValueError("the list is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{short(value)} is not a list as JSON writes it") from error


def _single(value: Any) -> Any:
    """Vertex writes every value as a list: one of a single element stands for it."""
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


def _item_reader(spec: TensorSpec) -> Callable[[Any], Any]:
    if spec.dtype == "string":
        return _string
    if spec.dtype == "bool":
        return _boolean
    return _float if spec.dtype.startswith(("float", "bfloat", "complex")) else _integer


def _string(value: Any) -> Any:
    _present(value)
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"{short(value)} is not a string")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("the text holds a lone surrogate, which is not UTF-8") from error
    return value


def _float(value: Any) -> float:
    _present(value)
    if isinstance(value, (int, float)):
        return value
    return _number(value, float, "number")


def _integer(value: Any) -> int:
    _present(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int):
        return value
    return _number(value, int, "integer")


def _number(value: Any, read: Callable[[str], Any], name: str) -> Any:
    """Vertex's training data holds numbers as strings too."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    try:
        if not isinstance(text, str) or "_" in text:  # Python alone reads 1_000 as a number
            raise ValueError
        return read(text)
    except ValueError as error:
        raise ValueError(f"{short(value)} is not {'an' if name[0] == 'i' else 'a'} {name}") from error


def _boolean(value: Any) -> bool:
    _present(value)
    if isinstance(value, bool):
        return value
    found = _BOOLEANS.get(value.lower() if isinstance(value, (str, bytes)) else value)
    if found is None:
        raise ValueError(f"{short(value)} is neither true nor false")
    return found


_BOOLEANS: dict[Any, bool] = {
    1: True, 0: False, "true": True, "false": False, b"true": True, b"false": False, "1": True, "0": False, b"1": True, b"0": False,
}  # fmt: skip


def _present(value: Any) -> None:
    if value is MISSING:
        raise ValueError("is missing")
    if value is None:
        raise ValueError("the value is null")


def short(value: Any) -> str:
    """A value as a message shows it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


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
