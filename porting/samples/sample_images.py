"""Generates encoded images for inputs that a graph decodes, for the comparison with TensorFlow."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np

from torch_towers.extras import need

SIZES = ((8, 8), (5, 7), (32, 24), (240, 256))
"""Heights and widths in pixels."""


def sample_images(ops: set[str]) -> list[bytes]:
    """A few PNG files with smooth colours, and JPEG files if the graph can decode them.

    `ops` are the ops of the graph: a graph that decodes only JPEG gets JPEG, which needs Pillow (extra `[images]`).
    """
    return [_file(ops)(_gradient(height, width)) for height, width in SIZES]


def odd_images(ops: set[str]) -> list[bytes]:
    """A single pixel, grey levels, and an image one pixel wide."""
    grey = _gradient(9, 6)[..., :1]
    return [_file(ops)(image) for image in (_gradient(1, 1), grey, _gradient(40, 1))]


def _file(ops: set[str]) -> Callable[[np.ndarray], bytes]:
    return _png if ops & {"DecodePng", "DecodeImage"} and not ops & {"DecodeAndCropJpeg"} else _jpeg


def _gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


def _png(image: np.ndarray) -> bytes:
    """Encodes PNG. Source: the PNG specification: signature, header, one compressed stream of rows without filters,
    end."""
    height, width, channels = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _jpeg(image: np.ndarray) -> bytes:
    library = need("PIL.Image", "images")  # decoding needs it as well

    file = io.BytesIO()
    library.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "JPEG", quality=90)
    return file.getvalue()
