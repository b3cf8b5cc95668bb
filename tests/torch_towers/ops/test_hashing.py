"""Hashes of every length of bytes against TensorFlow."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.witness import tf
from torch_towers.ops.hashing import fingerprint, hash_bucket_fast, hash_bucket_legacy, hash_bucket_strong
from torch_towers.ops.strings import strings

random_bytes = random.Random(0).randbytes
EVERY_LENGTH = (
    [random_bytes(length) for length in range(260) for _ in range(3)]
    + [b"\0" * length for length in range(260)]
    + [b"\xff" * length for length in range(260)]
)
X = strings(EVERY_LENGTH, (len(EVERY_LENGTH),))


@pytest.mark.parametrize("buckets", [1, 2, 1000, 2**31 + 11, 2**63 - 1])
def test_every_length(buckets: int) -> None:
    assert (
        hash_bucket_fast(X, num_buckets=buckets).tolist()
        == tf.strings.to_hash_bucket_fast(EVERY_LENGTH, buckets).numpy().tolist()
    )
    theirs = tf.raw_ops.StringToHashBucket(string_tensor=EVERY_LENGTH, num_buckets=buckets)
    assert hash_bucket_legacy(X, num_buckets=buckets).tolist() == theirs.numpy().tolist()
    for key in ((0, 0), (133, 137), (-1, 2**63 - 1), (-(2**63), 7)):
        theirs = tf.strings.to_hash_bucket_strong(EVERY_LENGTH, buckets, list(key))
        assert hash_bucket_strong(X, num_buckets=buckets, key=key).tolist() == theirs.numpy().tolist()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 2**63 - 1))
def test_any_bytes(text: bytes, buckets: int) -> None:
    x = strings([text], (1,))
    assert (
        hash_bucket_fast(x, num_buckets=buckets).tolist()
        == tf.strings.to_hash_bucket_fast([text], buckets).numpy().tolist()
    )
    assert fingerprint(x).tolist() == tf.fingerprint([text]).numpy().tolist()


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int32, torch.int64, torch.float32, torch.float64, torch.bool, torch.float16]
)
def test_fingerprints_of_numbers(dtype: torch.dtype) -> None:
    x = torch.arange(24).reshape(4, 3, 2).to(dtype)
    assert fingerprint(x).tolist() == tf.fingerprint(x.numpy()).numpy().tolist()


def test_known_values() -> None:
    """Fingerprint64 modulo 1000, as BigQuery's FARM_FINGERPRINT has it where that is positive."""
    words = strings([b"a", b"", b"1", "日本".encode()], (4,))
    assert hash_bucket_fast(words, num_buckets=1000).tolist() == [939, 263, 849, 883]
    assert hash_bucket_strong(words[:3], num_buckets=1000, key=(133, 137)).tolist() == [354, 900, 326]
