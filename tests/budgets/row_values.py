"""A value of a row as one input, through the op that its first line names: images and compressed texts."""

from __future__ import annotations

import io
import struct
import zlib

from torch_towers.formats.byte_strings import string, strings
from torch_towers.ops.compression import decompress
from torch_towers.ops.images import decode_image


def png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG whose header says one size, and whose data have `rows`."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(rows * (width + 1)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def of_pillow(kind: str, at: int, order: str, *sizes: int) -> bytes:
    """A file of 16 x 16 pixels, and `sizes` at byte `at`, or behind the JPEG's frame marker."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, kind)
    made = bytearray(file.getvalue())
    at = made.index(b"\xff\xc0") + 5 if kind == "JPEG" else at
    struct.pack_into(order, made, at, *sizes)
    return bytes(made)


def seeds() -> list[bytes]:
    return [b"image\n" + png(4, 3, 3), b"ZLIB\n" + zlib.compress(b"a")]


def attempt(data: bytes) -> None:
    op, _, value = data.partition(b"\n")
    if op == b"image":
        decode_image(string(value), channels=0, frames="file")
    else:
        decompress(strings([value]), kind="ZLIB" if op == b"ZLIB" else "GZIP")
