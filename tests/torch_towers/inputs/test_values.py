"""One value of a document, a file or a CSV field, by the dtype of its feature."""

from __future__ import annotations

from typing import Any

import pytest

from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.values import MISSING, short, value_reader


def read(dtype: str, value: Any) -> Any:
    return value_reader(TensorSpec("x", dtype, ("batch",)))(value)


@pytest.mark.parametrize(
    ("dtype", "given", "found"),
    [
        ("string", "ü", "ü"),
        ("string", b"\xff", b"\xff"),
        ("float32", "7.5", 7.5),
        ("bfloat16", b"-1e3", -1000.0),
        ("float64", 3, 3),
        ("complex64", "2", 2.0),
        ("int64", "12", 12),
        ("int64", 2**60 + 1, 2**60 + 1),
        ("int32", 4.0, 4),
        ("bool", "TRUE", True),
        ("bool", b"0", False),
        ("bool", 1, True),
    ],
)
def test_read(dtype: str, given: Any, found: Any) -> None:
    value = read(dtype, given)
    assert value == found
    assert type(value) is type(found)


@pytest.mark.parametrize(
    ("dtype", "given", "message"),
    [
        ("string", 1, "^1 is not a string"),
        ("string", "\ud800", "lone surrogate"),
        ("float32", "many", "^'many' is not a number"),
        ("float32", "1_000", "^'1_000' is not a number"),  # Python alone reads it
        ("int64", "1.5", "^'1.5' is not an integer"),
        ("int64", 1.5, "^1.5 is not an integer"),
        ("bool", "yes", "^'yes' is neither true nor false"),
        ("bool", 2, "^2 is neither true nor false"),
    ],
)
def test_refused(dtype: str, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(dtype, given)


@pytest.mark.parametrize("dtype", ["string", "float32", "int64", "bool"])
def test_nothing(dtype: str) -> None:
    with pytest.raises(ValueError, match=r"^the value is null"):
        read(dtype, None)
    with pytest.raises(ValueError, match=r"^is missing"):
        read(dtype, MISSING)


def test_long_values_are_shortened() -> None:
    assert short("a" * 58) == repr("a" * 58)
    assert short("a" * 100) == "'" + "a" * 56 + "..."
