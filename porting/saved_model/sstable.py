"""The sorted table (SSTable): the file format of `variables.index`, in LevelDB's and TensorFlow's variant.

    data blocks | metaindex block | index block | footer (48 bytes)
    a block: entries (prefix-compressed keys), restart array, then a type byte and a masked CRC32C

Every length, offset and checksum is checked, and the blocks must tile the file: no byte goes unverified.
Source: tensorflow/core/lib/io/{table,block,format}.cc.
"""

from __future__ import annotations

from typing import NoReturn

# crc32c, not google-crc32c: it has wheels for all our platforms and Python versions (a source build needs no external C
# library), releases the GIL, accepts any buffer, and is a single small extension.
from porting.errors import CorruptModelError
from torch_towers.extras import need

crc32c = need("crc32c", "port").crc32c

_FOOTER = 48
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_TRAILER = 5  # type byte and checksum after every block
_SNAPPY = 1
_MAX_BLOCK = 1 << 26  # bytes of a decompressed block; TensorFlow's writer aims at 256 KiB
_MAX_TABLE = 1 << 28  # total bytes of keys and values; prefixes and snappy could expand them far beyond the file


def unmask(checksum: int) -> int:
    """Undoes the masking of a CRC32C: stored checksums are rotated and shifted, so that a CRC of data with CRCs in it
    stays useful."""
    rotated = (checksum - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def read_varint(data: bytes | memoryview, position: int, end: int, bits: int, where: str) -> tuple[int, int]:
    """(value, position after it) of the varint at `position`. Raises CorruptModelError if it is truncated, over `bits`,
    or padded."""
    value = shift = 0
    while position < end and shift < bits:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            if value >> bits or (byte == 0 and shift > 7):  # too large, or not minimal
                break
            return value, position
    raise CorruptModelError(f"{where}: no {bits}-bit varint at byte {position}, the data is damaged or truncated")


def read_table(data: bytes, where: str) -> dict[bytes, bytes]:
    """All entries of the table `data` (a whole file), in order. Raises CorruptModelError, which starts with `where`."""

    def corrupt(what: str) -> NoReturn:
        raise CorruptModelError(f"{where}: {what}; the file is damaged or truncated, fetch it again")

    if len(data) < _FOOTER:
        corrupt(f"{len(data)} bytes, expected a sorted table of at least {_FOOTER}")
    if data[-8:] != _MAGIC:
        corrupt(f"magic number {data[-8:].hex()}, expected {_MAGIC.hex()}")
    body = len(data) - _FOOTER
    handles: list[int] = []
    position = body
    for _ in range(4):
        value, position = read_varint(data, position, len(data) - 8, 64, where)
        handles.append(value)
    if any(data[position:-8]):
        corrupt("non-zero padding in the footer")
    metaindex, index = (handles[0], handles[1]), (handles[2], handles[3])

    def read_block(handle: tuple[int, int]) -> list[tuple[bytes, bytes]]:
        offset, size = handle
        if offset + size + _TRAILER > body:
            corrupt(f"block at byte {offset} of {size} bytes, expected it to end before the footer at byte {body}")
        contents = data[offset : offset + size]
        kind = data[offset + size]
        stored = int.from_bytes(data[offset + size + 1 : offset + size + _TRAILER], "little")
        actual = crc32c(data[offset : offset + size + 1])
        if unmask(stored) != actual:
            corrupt(f"block at byte {offset}: checksum {actual:08x}, expected {unmask(stored):08x}")
        if kind == _SNAPPY:
            contents = decompress_snappy(contents, f"{where}: block at byte {offset}")
        elif kind != 0:
            corrupt(f"block at byte {offset} is of type {kind}, expected 0 (plain) or {_SNAPPY} (snappy)")
        return _entries(contents, f"{where}: block at byte {offset}")

    used = [metaindex, index]
    read_block(metaindex)
    entries: dict[bytes, bytes] = {}
    previous: bytes | None = None
    total = 0
    for separator, value in read_block(index):
        offset, position = read_varint(value, 0, len(value), 64, where)
        size, position = read_varint(value, position, len(value), 64, where)
        if position != len(value):
            corrupt(f"{len(value) - position} extra bytes behind a block handle")
        used.append((offset, size))
        block = read_block((offset, size))
        for key, content in block:
            if previous is not None and key <= previous:
                corrupt(f"key {key!r} stands after {previous!r}, expected keys in ascending order, each once")
            if key > separator:
                corrupt(f"key {key!r} is above {separator!r}, the last key of its block by the index")
            previous = key
            entries[key] = content
        total += sum(len(key) + len(content) for key, content in block)
        if total > _MAX_TABLE:
            corrupt(f"keys and values of over {_MAX_TABLE} bytes")
    position = 0
    for offset, size in sorted(used):
        if offset != position:
            corrupt(f"byte {position} belongs to no block or to two, the next block begins at byte {offset}")
        position = offset + size + _TRAILER
    if position != body:
        corrupt(f"{body - position} bytes between the last block and the footer")
    return entries


def _entries(block: bytes, where: str) -> list[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise CorruptModelError(f"{where}: {len(block)} bytes, expected at least the 4 of the restart count")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise CorruptModelError(f"{where}: {restarts} restarts, more than its {len(block)} bytes can hold")
    entries: list[tuple[bytes, bytes]] = []
    starts: set[int] = set()
    key, position, key_bytes = b"", 0, 0
    while position < end:
        start = position
        shared, position = read_varint(block, position, end, 32, where)
        unshared, position = read_varint(block, position, end, 32, where)
        size, position = read_varint(block, position, end, 32, where)
        if shared > len(key):
            raise CorruptModelError(
                f"{where}: a key shares {shared} bytes with the key before it, which has {len(key)}"
            )
        if position + unshared + size > end:
            raise CorruptModelError(
                f"{where}: entry at byte {start} needs {unshared} + {size} bytes, {end - position} are left"
            )
        if shared == 0:
            starts.add(start)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        key_bytes += len(key)
        if key_bytes > _MAX_BLOCK:
            raise CorruptModelError(f"{where}: its keys take over {_MAX_BLOCK} bytes")
        entries.append((key, block[position : position + size]))
        position += size
    for i in range(restarts):
        restart = int.from_bytes(block[end + 4 * i : end + 4 * i + 4], "little")
        if entries and restart not in starts:
            raise CorruptModelError(f"{where}: restart {i} points to byte {restart}, where no whole key begins")
    return entries


def decompress_snappy(data: bytes, where: str) -> bytes:
    """Decompresses a block. Own code, since it is short and only used for the index: some older models at Google were
    written this way.

    Source: format_description.txt of google/snappy.
    """
    size, position = read_varint(data, 0, len(data), 32, where)
    if size > _MAX_BLOCK:
        raise CorruptModelError(
            f"{where}: says that it decompresses to {size} bytes, at most {_MAX_BLOCK} are accepted"
        )
    out = bytearray()
    while position < len(data):
        tag = data[position]
        kind, extra = tag & 3, tag >> 2
        width = (max(extra - 59, 0), 1, 2, 4)[kind]  # bytes of the literal's length, or of the copy's offset
        position += 1 + width
        number = int.from_bytes(data[position - width : position], "little")
        if kind == 0:
            length = (number if width else extra) + 1
            out += data[position : position + length]
            position += length
        else:
            length = (extra & 7) + 4 if kind == 1 else extra + 1
            offset = (extra >> 3) << 8 | number if kind == 1 else number
            if not 0 < offset <= len(out):
                raise CorruptModelError(f"{where}: snappy copy from {offset} bytes back, {len(out)} are there")
            start, end = len(out) - offset, len(out) + length
            while len(out) < end:  # a copy may overlap its own output
                out += out[start : start + end - len(out)]
        if position > len(data) or len(out) > size:
            raise CorruptModelError(f"{where}: snappy data end too early or too late")
    if len(out) != size:
        raise CorruptModelError(f"{where}: decompresses to {len(out)} bytes, expected {size}")
    return bytes(out)
