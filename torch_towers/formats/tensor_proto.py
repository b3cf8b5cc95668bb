"""The wire format of `TensorProto`, decoded like TensorFlow does: protobuf's rules, then those of
`Tensor::FromProto`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from torch_towers.formats.tf_example import MalformedError, varint

DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64", 9: "int64",
    10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
"""The enum values of the dtypes."""

WIDTHS = {
    "float32": 4, "float64": 8, "int32": 4, "uint8": 1, "int16": 2, "int8": 1, "complex64": 8, "int64": 8, "bool": 1,
    "bfloat16": 2, "uint16": 2, "complex128": 16, "float16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip

LARGEST = 1 << 31
"""Maximum bytes of a tensor: the limit of a protobuf message. Repeated values could declare any number."""

_DTYPE, _SHAPE, _CONTENT, _STRINGS = 1, 2, 4, 8
_FIXED = {5: 4, 6: 8, 9: 4, 12: 8}  # field numbers of floats, and their width in bytes
_HANDLES = (14, 15)  # resources and variants
_VARINTS = (7, 10, 11, 13, 16, 17)
_FIELDS = {
    "float32": 5, "float64": 6, "int32": 7, "uint8": 7, "int16": 7, "int8": 7, "uint16": 7, "complex64": 9, "int64": 10,
    "bool": 11, "complex128": 12, "float16": 13, "bfloat16": 13, "uint32": 16, "uint64": 17,
}  # fmt: skip
_MAX_AXES, _MAX_DEPTH = 254, 100


class TensorProto:
    """A decoded message: `dtype` (enum value), `shape`, and the raw values."""

    def __init__(self, data: bytes) -> None:
        self.dtype = 0
        self.shape: list[int] = []
        self.content = b""
        self.strings: list[bytes] = []
        self.numbers: dict[int, bytearray] = {field: bytearray() for field in _FIXED}
        self.integers: dict[int, list[int]] = {field: [] for field in _VARINTS}
        for field, kind, value, item in fields(data):
            if (field, kind) == (_DTYPE, 0):
                self.dtype = value & 0xFFFFFFFF
            elif (field, kind) == (_SHAPE, 2):
                self.shape += [_size(part) for number, wire, _, part in fields(item) if (number, wire) == (2, 2)]
            elif (field, kind) == (_CONTENT, 2):
                self.content = item
            elif (field, kind) == (_STRINGS, 2):
                self.strings.append(item)
            elif field in _HANDLES and kind == 2:
                deque(fields(item), maxlen=0)  # unused, but it must be a valid message
            elif field in _FIXED and kind in (2, 5 if _FIXED[field] == 4 else 1):
                if len(item) % _FIXED[field]:
                    raise MalformedError
                self.numbers[field] += item
            elif field in _VARINTS and kind == 0:
                self.integers[field].append(value)
            elif field in _VARINTS and kind == 2:
                self.integers[field] += _packed(item)

    def count(self) -> int:
        """The number of elements."""
        sizes = [size for size in self.shape if size]
        if len(self.shape) > _MAX_AXES or any(size < 0 for size in sizes) or math.prod(sizes) > LARGEST:
            raise MalformedError
        return math.prod(self.shape)

    def bytes(self, dtype: str) -> bytes:
        """The numbers in `dtype`, little-endian. Missing elements repeat the last one, or are 0."""
        width, count = WIDTHS[dtype], self.count()
        if count * width > LARGEST:
            raise MalformedError
        if self.content:
            if (count and len(self.content) != count * width) or (
                dtype == "bool" and max(self.content[:count] + b"\0") > 1
            ):
                raise MalformedError
            return self.content[: count * width]
        field = _FIELDS[dtype]
        if field in _FIXED:
            data = bytes(self.numbers[field])
        else:
            mask = (1 << 8 * width) - 1
            numbers = [int(bool(value)) if dtype == "bool" else value & mask for value in self.integers[field]]
            data = b"".join(value.to_bytes(width, "little") for value in numbers)
        data = data[: min(len(data) // width, count) * width]
        return data + (data[-width:] or bytes(width)) * (count - len(data) // width)

    def texts(self) -> list[bytes]:
        """The strings. Missing elements repeat the last one, or are empty."""
        count = self.count()
        if self.content:
            return _texts(self.content, count) if count else []
        found = self.strings[:count]
        return found + (found[-1:] or [b""]) * (count - len(found))


def fields(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The fields of a message: number, wire type, and the integer or bytes. Groups are skipped."""
    position, end = 0, len(data)
    groups: list[int] = []
    while position < end:
        tag, position = varint(data, position, end)
        field, kind = tag >> 3, tag & 7
        value, start = 0, position
        if not field or tag >> 32:
            raise MalformedError
        if kind == 0:
            value, position = varint(data, position, end)
        elif kind == 2:
            length, start = varint(data, position, end)
            position = start + length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 3 and len(groups) < _MAX_DEPTH:
            groups.append(field)
        elif kind != 4 or not groups or groups.pop() != field:
            raise MalformedError
        if position > end:
            raise MalformedError
        if not groups and kind in (0, 1, 2, 5):
            yield field, kind, value, data[start:position]
    if groups:
        raise MalformedError


def _size(dimension: bytes) -> int:
    size = 0
    for field, kind, value, item in fields(dimension):
        if (field, kind) == (1, 0):
            size = value - (1 << 64) if value >> 63 else value
        elif (field, kind) == (2, 2):
            try:
                item.decode()
            except UnicodeDecodeError:
                raise MalformedError from None
    return size


def _packed(data: bytes) -> list[int]:
    found: list[int] = []
    position = 0
    while position < len(data):
        value, position = varint(data, position, len(data))
        found.append(value)
    return found


def _texts(content: bytes, count: int) -> list[bytes]:
    """Strings in TensorFlow's own encoding: all lengths, then all bytes."""
    position = 0
    lengths: list[int] = []
    for _ in range(count):
        length, position = varint(content, position, len(content))
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise MalformedError
    found: list[bytes] = []
    for length in lengths:
        found.append(content[position : position + length])
        position += length
    return found
