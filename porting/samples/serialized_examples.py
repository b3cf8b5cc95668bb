"""Generates serialized `tf.Example` records for a graph's parser, for the comparison with TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch_towers.graph.graph import Node


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that a parser reads. `shape` None: variable length."""

    kind: str  # "sparse", "ragged" or "dense"
    name: bytes
    dtype: str
    shape: tuple[int, ...] | None
    optional: bool

    def count(self, free: int) -> int:
        """The number of values in a record; `free` for a variable length."""
        count = 1
        for size in (None,) if self.shape is None else self.shape:
            count *= free if size is None else size
        return count


PARSERS = frozenset({"ParseExample", "ParseExampleV2", "ParseSingleExample"})


def features_of(node: Node, values: Sequence[Any]) -> list[Feature]:
    """The features of a parser, in the order of its attributes. `values` are its operands as arrays, None if not
    constant."""
    attrs = node.attrs
    sparse_types, dense_types = attrs.get("sparse_types", ()), attrs.get("Tdense", ())
    ragged_types, shapes = attrs.get("ragged_value_types", ()), attrs.get("dense_shapes", ())
    if node.op == "ParseExampleV2":
        sparse, dense, ragged = (_names([value]) for value in values[2:5])
        defaults = values[5:]
    elif node.op == "ParseExample":
        end = 2 + len(sparse_types)
        sparse, dense, ragged = _names(values[2:end]), _names(values[end : end + len(shapes)]), []
        defaults = values[end + len(shapes) :]
    else:
        sparse, dense, ragged = list(attrs.get("sparse_keys", ())), list(attrs.get("dense_keys", ())), []
        defaults = values[1:]
    found = [Feature("sparse", name, dtype, None, True) for name, dtype in zip(sparse, sparse_types, strict=True)]
    found += [Feature("ragged", name, dtype, None, True) for name, dtype in zip(ragged, ragged_types, strict=True)]
    for name, dtype, shape, default in zip(dense, dense_types, shapes, defaults, strict=True):
        optional = default is not None and default.size > 0
        found.append(Feature("dense", name, dtype, tuple(shape or ()), optional))
    return found


def record(features: Iterable[tuple[Feature, Sequence[Any]]]) -> bytes:
    """A record of `features` with their values."""
    entries = (_field(1, _field(1, f.name) + _field(2, _feature(f.dtype, values))) for f, values in features)
    return _field(1, b"".join(entries))


def _names(values: Iterable[Any]) -> list[bytes]:
    return [name for value in values if value is not None for name in value.reshape(-1).tolist()]


def _feature(dtype: str, values: Sequence[Any]) -> bytes:
    if dtype == "string":
        return _field(1, b"".join(_field(1, value) for value in values))
    if dtype == "float32":
        return _field(2, _field(1, struct.pack(f"<{len(values)}f", *values)))
    return _field(3, _field(1, b"".join(_varint(int(value) % (1 << 64)) for value in values)))


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
