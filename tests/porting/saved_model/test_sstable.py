"""The sorted table: no damaged file is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from porting.errors import CorruptModelError
from porting.saved_model.bundle import Bundle
from porting.saved_model.sstable import decompress_snappy, read_table
from tests.porting.saved_model.tables import block, entry, sealed, table, varint


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle that TensorFlow wrote: two float tensors and one of strings."""
    tf = pytest.importorskip("tensorflow")
    prefix = tmp_path_factory.mktemp("small") / "variables"
    tensors = [tf.constant([1.0, 2.0, 3.0]), tf.constant([[1, 2]]), tf.constant(["a", "bc"])]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=["a/x", "a/y", "b"], shape_and_slices=[""] * 3, tensors=tensors)
    return prefix


def test_every_flipped_bit_of_an_index_is_refused(small: Path) -> None:
    path = small.with_name("variables.index")
    good = path.read_bytes()
    assert set(read_table(good, "index")) == {b"", b"a/x", b"a/y", b"b"}
    accepted: list[int] = []
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            read_table(bytes(bad), "index")
            accepted.append(bit)
        except CorruptModelError:
            pass
    assert accepted == []


def test_every_truncated_index_is_refused(small: Path) -> None:
    good = small.with_name("variables.index").read_bytes()
    for length in range(len(good)):
        with pytest.raises(CorruptModelError):
            read_table(good[:length], "index")
    with pytest.raises(CorruptModelError):
        read_table(good + b"\0", "index")


def test_every_flipped_byte_of_a_shard_is_refused(small: Path) -> None:
    path = small.with_name("variables.data-00000-of-00001")
    good = path.read_bytes()
    try:
        for position in range(len(good)):
            for change in (1, 0x80, 0xFF):
                bad = bytearray(good)
                bad[position] ^= change
                path.write_bytes(bytes(bad))
                with pytest.raises(CorruptModelError, match=r"variables\.data-00000-of-00001"):
                    Bundle(small).verify()
        for length in range(len(good)):
            path.write_bytes(good[:length])
            with pytest.raises(CorruptModelError):
                Bundle(small)
    finally:
        path.write_bytes(good)


GOOD = block(entry(b"", b"v") + entry(b"k", b"w"))


def test_the_writer_of_these_tests_writes_tables_that_can_be_read() -> None:
    assert read_table(table(GOOD), "index") == {b"": b"v", b"k": b"w"}
    shared = block(entry(b"ab", b"1") + entry(b"c", b"2", shared=2))
    assert read_table(table(shared), "index") == {b"ab": b"1", b"abc": b"2"}


@pytest.mark.parametrize(
    "bad, message",
    [
        (b"", "0 bytes"),
        (table(GOOD)[:-8] + b"\0" * 8, "magic"),
        (table(GOOD, handle=varint(1 << 63) + varint(1 << 63)), "before the footer"),
        (table(GOOD, handle=varint(0) + varint(1 << 40)), "before the footer"),
        (table(GOOD, handle=b"\xff" * 10), "varint"),
        (table(GOOD, handle=varint(0)), "varint"),
        (table(GOOD, handle=varint(0) + varint(len(GOOD) - 5) + b"x"), "extra bytes"),
        (table(block(entry(b"a", b""), kind=2)), "type 2"),
        (table(block(entry(b"a", b""), kind=9)), "type 9"),
        (table(sealed(b"abc")), "restart count"),
        (table(sealed(b"\xff\xff\xff\xff")), "restarts"),
        (table(block(entry(b"a", b""), restarts=(1,))), "restart"),
        (table(block(entry(b"a", b"", shared=1))), "shares 1 bytes"),
        (table(block(b"\xff\xff\xff\xff\xff\xff\x01")), "varint"),
        (table(block(varint(0) + varint(5) + varint(1 << 31) + b"abcde")), "needs"),
        (table(block(entry(b"b", b"") + entry(b"a", b""))), "ascending"),
        (table(block(entry(b"a", b"") + entry(b"a", b""))), "ascending"),
        (table(block(entry(b"z", b"")), last_key=b"a"), "last key"),
        (table(sealed(varint(1 << 31) + b"\0a", kind=1)), "decompresses"),
        (b"hole" + table(GOOD), "block"),
    ],
)
def test_crafted_tables_are_refused(bad: bytes, message: str) -> None:
    with pytest.raises(CorruptModelError, match=message):
        read_table(bad, "index")


def test_key_bombs_are_refused() -> None:
    long = b"k" * (1 << 20)
    bomb = entry(long, b"") + b"".join(entry(bytes([i]), b"", shared=len(long)) for i in range(100))
    with pytest.raises(CorruptModelError, match="keys"):
        read_table(table(block(bomb)), "index")


@pytest.mark.parametrize(
    "compressed, expected",
    [
        (varint(3) + b"\x08abc", b"abc"),
        (varint(9) + b"\x08abc" + bytes([(9 - 3 - 4) << 2 | 1, 3]), b"abcabcabc"),  # 1-byte offset, overlapping
        (varint(8) + b"\x0cabcd" + bytes([3 << 2 | 2, 4, 0]), b"abcdabcd"),  # 2-byte offset
        (varint(8) + b"\x0cabcd" + bytes([3 << 2 | 3, 4, 0, 0, 0]), b"abcdabcd"),  # 4-byte offset
        (varint(70) + bytes([60 << 2, 69]) + b"x" * 70, b"x" * 70),  # a literal with its length in a byte
    ],
)
def test_snappy(compressed: bytes, expected: bytes) -> None:
    assert decompress_snappy(compressed, "block") == expected
    for length in range(len(compressed)):
        with pytest.raises(CorruptModelError):
            decompress_snappy(compressed[:length], "block")


@pytest.mark.parametrize(
    "bad",
    [
        varint(1 << 31),
        varint(4) + b"\x05\x01",
        varint(2) + b"\x08abc",
        varint(4) + b"\x08abc",
        varint(9) + b"\x08abc\x09\x00",
    ],
)
def test_bad_snappy_is_refused(bad: bytes) -> None:
    with pytest.raises(CorruptModelError):
        decompress_snappy(bad, "block")


def test_a_compressed_block_is_read() -> None:
    body = entry(b"", b"v") + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    compressed = varint(len(body)) + bytes([(len(body) - 1) << 2]) + body
    assert read_table(table(sealed(compressed, kind=1)), "index") == {b"": b"v"}
