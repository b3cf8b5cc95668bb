"""Serialized `tf.Example`s: the native core and the Python fallback give the same values, or the same error."""

from __future__ import annotations

from random import Random
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes
from tests.porting.saved_model.tables import varint
from torch_towers.errors import InputError
from torch_towers.kernels import native
from torch_towers.ops.parsing import parse_examples

SPARSE = ((b"words", "string"), (b"ids", "int64"))
DENSE = ((b"price", "float32", (2,)), (b"id", "int64", ()), (b"name", "string", (-1,)))
RAGGED = ((b"weights", "float32", "int64"),)


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def example(features: dict[bytes, bytes]) -> bytes:
    return field(1, b"".join(field(1, field(1, name) + field(2, feature)) for name, feature in features.items()))


def seeds() -> list[bytes]:
    strings = field(1, field(1, b"red") + field(1, "é".encode()))
    floats = field(2, field(1, np.float32([1.5, -2]).tobytes()))
    integers = field(3, field(1, varint(3) + varint((1 << 64) - 5)))
    single = field(3, b"\x08\x07")
    loose = field(2, b"".join(b"\x0d" + np.float32(x).tobytes() for x in (1, 2)))
    whole = {b"words": strings, b"ids": integers, b"price": floats, b"id": single, b"name": strings, b"weights": loose}
    return [example(whole), example({b"id": single, b"price": loose, b"name": field(1, b"")})]


def mutated(data: bytes, random: Random) -> bytes:
    return of_bytes(data, random)


def parsed(data: bytes) -> Any:
    serialized = np.empty(1, object)
    serialized[0] = data
    defaults = (torch.empty(0), torch.empty(0, dtype=torch.int64), np.array([b"pad"], object))
    names = np.empty(0, object)
    try:
        return parse_examples(serialized, names, defaults, sparse=SPARSE, dense=DENSE, ragged=RAGGED)
    except InputError as error:
        return str(error)


def attempt(data: bytes) -> None:
    found = parsed(data)
    with mock.patch.object(native, "core", None):
        expected = parsed(data)
    if isinstance(found, str) or isinstance(expected, str):
        assert found == expected
        return
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
