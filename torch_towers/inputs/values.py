"""Values: one value as JSON documents, Vertex AI's files and CSV fields spell it, read by the dtype of its feature.

`reader.py` reads whole columns of Python values at once and refuses a batch. Files and documents need a reader for a single value:
they write numbers as text, and a bad value is told with its row, so that a bulk job can set the row aside and go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_towers.graph.graph import TensorSpec


class Missing:
    """Stands where a row of JSON lacks a value."""


MISSING = Missing()


def value_reader(spec: TensorSpec) -> Callable[[Any], Any]:
    """The function that reads one value of a feature: it gives a str, bytes, bool, int or float, or raises `ValueError`."""
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
