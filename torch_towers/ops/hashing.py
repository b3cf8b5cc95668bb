"""Hashing strings to buckets, bit for bit as TensorFlow. A bucket is the unsigned hash modulo the number of buckets."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Spec, Strings, elementwise, op
from torch_towers.kernels import native
from torch_towers.ops.numerals import as_string

try:
    import farmhash

    fingerprint64: Any = farmhash.fingerprint64
except ImportError:  # pragma: no cover  only needed by towers that hash
    fingerprint64 = None
try:
    import siphash24 as _siphash

    siphash24: Any = _siphash.siphash24  # type: ignore
except ImportError:  # pragma: no cover  only needed by towers with salted hashing
    siphash24 = None

_BUCKETS = elementwise("int64")
_MASK = (1 << 64) - 1
Hashes = np.ndarray[Any, np.dtype[np.uint64]]


def _buckets(hashes: Hashes, num_buckets: int) -> Tensor:
    """Unsigned 64-bit hashes modulo `num_buckets`."""
    return torch.from_numpy((hashes % np.uint64(num_buckets)).view(np.int64))  # type: ignore[reportUnknownMemberType]


def hashes_of(x: Strings | Tensor, key: bytes, hash_of: Callable[[bytes], int]) -> Hashes:
    """The hash of each string, or of an integer's decimal text: by the native core (SipHash under a `key` of 16 bytes,
    MurmurHash64A from one of 8, Fingerprint64 if it is empty), else by `hash_of`."""
    hashes = np.empty(tuple(x.shape), np.uint64)
    if isinstance(x, Tensor):
        if native.core is not None and x.dtype in (torch.int64, torch.int32):
            numbers = x.to(torch.int64).contiguous().numpy()
            if native.core.hash_integers(numbers, key, hashes):
                return hashes
        x = as_string(x)
    if native.core is None or not native.core.hashes(np.ascontiguousarray(x), key, hashes):
        hashes.reshape(-1)[:] = np.fromiter(map(hash_of, x.ravel().tolist()), np.uint64, x.size)
    return hashes


@op(stage="host", infer=_BUCKETS)
def hash_bucket_fast(x: Strings | Tensor, *, num_buckets: int) -> Tensor:
    """FarmHash Fingerprint64 modulo `num_buckets`: `[...] -> [...]` int64, integers as decimal text. Source:
    tf.raw_ops.StringToHashBucketFast."""
    if fingerprint64 is None:
        raise InputError(
            "this tower hashes strings, and the package pyfarmhash is not installed: pip install pyfarmhash"
        )
    return _buckets(hashes_of(x, b"", fingerprint64), num_buckets)


@op(stage="host", infer=_BUCKETS)
def hash_bucket_strong(x: Strings | Tensor, *, num_buckets: int, key: tuple[int, int]) -> Tensor:
    """SipHash-2-4 under a key of two integers, modulo `num_buckets`: `[...] -> [...]` int64.

    Source: tf.raw_ops.StringToHashBucketStrong.
    """
    if siphash24 is None:
        raise InputError(
            "this tower hashes strings with a salt, and the package siphash24 is not installed: pip install siphash24"
        )
    secret = struct.pack("<2Q", *[part & _MASK for part in key])
    return _buckets(
        hashes_of(x, secret, lambda text: int.from_bytes(siphash24(text, key=secret).digest(), "little")), num_buckets
    )


@op(stage="host", infer=_BUCKETS)
def hash_bucket_legacy(x: Strings, *, num_buckets: int) -> Tensor:
    """TensorFlow's own 64-bit hash modulo `num_buckets`: `[...] -> [...]` int64. Source:
    tf.raw_ops.StringToHashBucket."""
    return _buckets(hashes_of(x, _SEED, _hash64), num_buckets)


_SEED = struct.pack("<Q", 0xDECAFCAFFE)


def _hash64(data: bytes) -> int:
    """MurmurHash64A. Source: tsl/platform/hash.cc."""
    m, r = 0xC6A4A7935BD1E995, 47
    h = int.from_bytes(_SEED, "little") ^ (len(data) * m & _MASK)
    whole = len(data) // 8 * 8
    for (k,) in struct.iter_unpack("<Q", data[:whole]):
        k = k * m & _MASK
        k ^= k >> r
        h = (h ^ (k * m & _MASK)) * m & _MASK
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & _MASK
    h ^= h >> r
    h = h * m & _MASK
    return h ^ (h >> r)


def _fingerprint_spec(x: Spec) -> list[Spec]:
    return [("uint8", (x[1][0] if x[1] else None, 8))]


@op(stage="host", infer=_fingerprint_spec)
def fingerprint(x: Tensor | Strings) -> Tensor:
    """FarmHash Fingerprint64 of each row as bytes: `[n, ...] -> [n, 8]` uint8. Source: tf.raw_ops.Fingerprint."""
    if fingerprint64 is None:
        raise InputError(
            "this tower hashes strings, and the package pyfarmhash is not installed: pip install pyfarmhash"
        )
    if isinstance(x, Tensor):
        flat = (
            x.contiguous().reshape(len(x), -1).view(torch.uint8)
            if x.numel()
            else x.new_empty(len(x), 0, dtype=torch.uint8)
        )
        rows = [row.tobytes() for row in flat.numpy()]
    else:
        rows = x.ravel().tolist()
        if x.size != len(x):  # a row of several strings hashes their fingerprints
            parts = [struct.pack("<Q", fingerprint64(text)) for text in rows]
            width = x.size // len(x) if len(x) else 0
            rows = [b"".join(parts[i * width : (i + 1) * width]) for i in range(len(x))]
    prints = np.array([fingerprint64(row) for row in rows], "<u8")
    return torch.as_tensor(prints.view(np.uint8).reshape(len(x), 8))
