"""Reads FlatBuffers and double-array tries from untrusted bytes: every offset is checked.

Source: https://flatbuffers.dev/internals, darts-clone (https://github.com/s-yata/darts-clone).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from torch_towers.errors import CheckpointError


class Table:
    """A FlatBuffer table: fields by their numbers in the schema."""

    def __init__(self, data: bytes, position: int, what: str) -> None:
        self._data, self._position, self._what = data, position, what
        self._fields: tuple[int, ...] = ()
        vtable = position - self._read("<i", position)
        size = self._read("<H", vtable)
        if size < 4 or size % 2:
            raise self._corrupt("the size of a table")
        self._fields = tuple(self._read("<H", vtable + offset) for offset in range(4, size, 2))

    def _corrupt(self, where: str) -> CheckpointError:
        return CheckpointError(
            f"the {self._what} model is corrupt: {where} points outside of its {len(self._data)} bytes"
        )

    def _read(self, form: str, position: int) -> Any:
        if not 0 <= position <= len(self._data) - struct.calcsize(form):
            raise self._corrupt(f"an offset at {position}")
        return struct.unpack_from(form, self._data, position)[0]

    def _field(self, number: int) -> int:
        """The offset of a field; 0 if it is absent."""
        offset = self._fields[number] if number < len(self._fields) else 0
        return self._position + offset if offset else 0

    def integer(self, number: int, default: int = 0, form: str = "<i") -> int:
        position = self._field(number)
        return self._read(form, position) if position else default

    def boolean(self, number: int) -> bool:
        return bool(self.integer(number, form="<B"))

    def real(self, number: int) -> float:
        position = self._field(number)
        return self._read("<f", position) if position else 0.0

    def table(self, number: int) -> Table | None:
        position = self._field(number)
        return Table(self._data, position + self._read("<I", position), self._what) if position else None

    def vector(self, number: int, dtype: str) -> np.ndarray[Any, Any]:
        """A vector of numbers; empty if absent."""
        position = self._field(number)
        return self._vector(position, np.dtype(dtype)) if position else np.empty(0, dtype)

    def _vector(self, position: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        start = position + self._read("<I", position)
        length = self._read("<I", start)
        if length * dtype.itemsize > len(self._data) - start - 4:
            raise self._corrupt(f"a vector of {length} elements")
        return np.frombuffer(self._data, dtype, length, start + 4)

    def string(self, number: int) -> bytes:
        return self.vector(number, "u1").tobytes()

    def strings(self, number: int) -> list[bytes]:
        position = self._field(number)
        if not position:
            return []
        start = position + self._read("<I", position) + 4
        count = len(self._vector(position, np.dtype("<u4")))
        return [self._vector(start + 4 * index, np.dtype("u1")).tobytes() for index in range(count)]


def root(data: bytes, what: str) -> Table:
    """The root table of a FlatBuffer; `what` names the model in errors."""
    if len(data) < 8:
        raise CheckpointError(f"the {what} model is corrupt: it has only {len(data)} bytes")
    return Table(data, struct.unpack_from("<I", data)[0], what)


class Trie:
    """A double-array trie: a node is a position in the array."""

    def __init__(self, units: np.ndarray[Any, Any]) -> None:
        self._units: list[int] = units.tolist()
        offsets = (units >> 10) << ((units & 0x200) >> 6)
        self._children: list[int] = (np.arange(len(units), dtype=np.uint32) ^ offsets).tolist()

    def __len__(self) -> int:
        return len(self._units)

    def has(self, byte: int) -> bool:
        """Whether a key contains `byte`: walks from the nodes with this label, mostly unused ones, up to the root or a
        dead end."""
        units, children = np.array(self._units, np.uint32), np.array(self._children, np.uint32)
        labels = units & 0x800000FF
        seen = np.zeros(len(units), bool)
        found = np.flatnonzero(labels == byte)
        while found.size and found[0]:
            seen[found] = True
            above = np.isin(children, (found ^ labels[found]).astype(np.uint32)) & ~seen & (units < 1 << 31)
            found = np.flatnonzero(above)
        return bool(found.size)

    def step(self, node: int, path: bytes) -> int:
        """The node that `path` leads to from `node`; -1 if there is none."""
        units, children = self._units, self._children
        for byte in path:
            node = children[node] ^ byte
            if node >= len(units) or units[node] & 0x800000FF != byte:
                return -1
        return node

    def value(self, node: int) -> int:
        """The value of a node; -1 if it has none."""
        if not self._units[node] & 0x100:
            return -1
        child = self._children[node]
        return self._units[child] & 0x7FFFFFFF if child < len(self._units) else -1

    def prefixes(self, text: bytes, start: int) -> Iterator[tuple[int, int]]:
        """(value, end) of every key that is a prefix of `text[start:]`, shortest first."""
        units, children = self._units, self._children
        if not units:
            return
        node = 0
        for position in range(start, len(text)):
            byte = text[position]
            node = children[node] ^ byte
            if node >= len(units) or units[node] & 0x800000FF != byte:
                return
            child = children[node]
            if child >= len(units):
                return
            if units[node] & 0x100:
                yield units[child] & 0x7FFFFFFF, position + 1
