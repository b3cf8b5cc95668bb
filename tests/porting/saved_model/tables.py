"""A writer of sorted tables, for tensor bundle indexes that TensorFlow would never write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crc32c import crc32c

from porting.saved_model import protos


def mask(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def entry(key: bytes, value: bytes, shared: int = 0) -> bytes:
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def block(entries: bytes, restarts: tuple[int, ...] = (0,), kind: int = 0) -> bytes:
    """A block with its trailer."""
    body = (
        entries + b"".join(restart.to_bytes(4, "little") for restart in restarts) + len(restarts).to_bytes(4, "little")
    )
    return sealed(body, kind)


def sealed(body: bytes, kind: int = 0) -> bytes:
    return body + bytes([kind]) + mask(crc32c(body + bytes([kind]))).to_bytes(4, "little")


def table(data: bytes, last_key: bytes = b"\xff" * 8, handle: bytes | None = None) -> bytes:
    """A sorted table of one sealed data block."""
    meta = block(b"")
    index = block(entry(last_key, varint(0) + varint(len(data) - 5) if handle is None else handle))
    footer = varint(len(data)) + varint(len(meta) - 5) + varint(len(data) + len(meta)) + varint(len(index) - 5)
    return data + meta + index + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def index_of(messages: Mapping[bytes, Any], header: Mapping[str, Any] | None = None) -> bytes:
    """A `variables.index` with entries that TensorFlow would never write."""
    first = protos.message_class("BundleHeaderProto")(
        **({"num_shards": 1, "version": {"producer": 1}} | dict(header or {}))
    )
    entries = entry(b"", first.SerializeToString())
    return table(block(entries + b"".join(entry(key, messages[key].SerializeToString()) for key in sorted(messages))))
