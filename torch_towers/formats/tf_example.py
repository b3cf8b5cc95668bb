"""The wire format of `tf.Example`, decoded like TensorFlow's fast parser does.

That parser differs from protobuf's: a length that reaches past the end is truncated, bytes after a packed list are
ignored, and an entry of the feature map is a key and a value and nothing else. This one accepts and refuses the same
bytes, with the same values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BYTES, FLOATS, INTEGERS = 0x0A, 0x12, 0x1A
"""The first byte of a feature: which of the three lists it has."""

_FIRST = 0x0A  # the tag of a length-delimited field number 1
_SECOND = 0x12
_FIXED32 = 0x0D
_VARINT = 0x08
_MAX_VARINT_BYTES = 10


class MalformedError(ValueError):
    """Bytes that TensorFlow's parser refuses."""


def entries(data: bytes) -> list[tuple[bytes, bytes]]:
    """The keys and serialized features of an example, in byte order, including repeated keys."""
    found: list[tuple[bytes, bytes]] = []
    position, end = 0, len(data)
    while position < end:
        if data[position] != _FIRST:
            position = _skip(data, position, end)
            continue
        length, position = _length(data, position + 1, end)
        stop = _limit(position, length, end)
        while position < stop:
            if data[position] != _FIRST:
                raise MalformedError
            position = _entry(data, position + 1, stop, found)
    return found


def _entry(data: bytes, position: int, end: int, found: list[tuple[bytes, bytes]]) -> int:
    length, position = _length(data, position, end)
    stop = _limit(position, length, end)
    parts = {_FIRST: b"", _SECOND: b""}
    for _ in range(2):
        tag, position = varint(data, position, stop)
        tag &= 0xFFFFFFFF
        if tag not in parts:
            raise MalformedError
        length, position = _length(data, position, stop)
        if length > stop - position:
            raise MalformedError
        parts[tag] = data[position : position + length]
        position += length
    if position != stop:
        raise MalformedError
    found.append((parts[_FIRST], parts[_SECOND]))
    return stop


def _skip(data: bytes, position: int, end: int) -> int:
    """The end of an unknown field. One that reaches past the end is accepted, as in TensorFlow."""
    tag, position = varint(data, position, end)
    kind = tag & 7
    if kind == 0:
        return varint(data, position, end)[1]
    if kind == 2:
        length, position = _length(data, position, end)
        return position if length >= 1 << 31 else min(position + length, end)
    size = {1: 8, 5: 4}.get(kind)
    if size is None or size > end - position:
        raise MalformedError
    return position + size


def bytes_list(feature: bytes) -> list[bytes]:
    """The strings of a feature whose first byte is `BYTES`."""
    position, end = _list(feature)
    found: list[bytes] = []
    while position < end:
        if feature[position] != _FIRST:
            raise MalformedError
        length, position = _length(feature, position + 1, end)
        if length > end - position:
            raise MalformedError
        found.append(feature[position : position + length])
        position += length
    return found


def float_list(feature: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The numbers of a feature whose first byte is `FLOATS`, packed or not: `[n]` float32."""
    position, end = _list(feature)
    if position == end:
        return np.empty(0, np.float32)
    if feature[position] == _FIRST:
        length, position = _length(feature, position + 1, end)
        if length // 4 * 4 > end - position:
            raise MalformedError
        return np.frombuffer(feature, np.dtype("<f4"), length // 4, position)
    count, rest = divmod(end - position, 5)
    if rest:
        raise MalformedError
    pairs = np.frombuffer(feature, np.dtype([("tag", "u1"), ("value", "<f4")]), count, position)
    if (pairs["tag"] != _FIXED32).any():
        raise MalformedError
    return pairs["value"]


def int64_list(feature: bytes) -> list[int]:
    """The numbers of a feature whose first byte is `INTEGERS`, packed or not, as signed 64-bit integers."""
    position, end = _list(feature)
    if position == end:
        return []
    found: list[int] = []
    packed = feature[position] == _FIRST
    if packed:
        length, position = _length(feature, position + 1, end)
        end = _limit(position, length, end)
    while position < end:
        if not packed:
            if feature[position] != _VARINT:
                raise MalformedError
            position += 1
        value, position = varint(feature, position, end)
        found.append(value - (1 << 64) if value >> 63 else value)
    return found


def _list(feature: bytes) -> tuple[int, int]:
    """Start and end of the list in a feature."""
    length, position = _length(feature, 1, len(feature))
    return position, _limit(position, length, len(feature))


def varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A varint truncated to 64 bits, and the position after it."""
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        if position >= end:
            raise MalformedError
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise MalformedError


def _length(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A length: the lower 32 bits of a varint."""
    if position < end and data[position] < 0x80:
        return data[position], position + 1
    value, position = varint(data, position, end)
    return value & 0xFFFFFFFF, position


def _limit(position: int, length: int, end: int) -> int:
    """The end of a field of `length`, clamped to the enclosing field. Lengths that are negative as int32 are
    ignored."""
    return position + length if length < min(end - position, 1 << 31) else end
