"""The tensor bundle: TensorFlow's files are read bit-exactly, contradictory ones are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crc32c import crc32c

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import protos
from porting.saved_model.bundle import Bundle
from tests.porting.saved_model.conftest import WORDS
from tests.porting.saved_model.tables import index_of, mask, table, varint

NUMBERS = [
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
]


def message(**fields: Any) -> Any:
    """A good entry: four floats at the start of the shard."""
    shape = fields.pop("shape", [4])
    good = {"dtype": 1, "size": 16, "crc32c": mask(crc32c(bytes(16)))} | fields
    entry = protos.message_class("BundleEntryProto")(**good)
    for size in shape:
        entry.shape.dim.add(size=size)
    return entry


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle of one shard with these entries; returns its prefix."""

    def write_bundle(entries: dict[bytes, Any], shard: bytes = bytes(16), **header: Any) -> Path:
        (tmp_path / "variables.index").write_bytes(index_of(entries, header))
        (tmp_path / "variables.data-00000-of-00001").write_bytes(shard)
        return tmp_path / "variables"

    return write_bundle


def test_every_dtype_is_read_to_the_bit(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    values = {name: tf.cast(tf.constant([[0, 1, 2], [3, 100, 1]]), name) for name in NUMBERS}
    values |= {f"{name}_scalar": tf.cast(3, name) for name in NUMBERS} | {
        "none": tf.zeros([0, 3]),
        "no_strings": tf.zeros([0], tf.string),
    }
    values |= {"strings": tf.constant(WORDS), "matrix": tf.constant([["a", "b"], ["", "d"]])}
    eight_bits = (tf.dtypes.experimental.float8_e5m2, tf.dtypes.experimental.float8_e4m3fn)
    values |= {kind.name: tf.cast([1.5, -2.0], kind) for kind in eight_bits}
    prefix = tmp_path / "variables"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    bundle = Bundle(prefix)
    bundle.verify()
    assert set(bundle.entries) == set(values)
    for name, value in values.items():
        entry = bundle.entries[name]
        assert (entry.dtype.name, entry.shape) == (value.dtype.name, tuple(value.shape))
        if value.dtype == tf.string:
            assert bundle.numpy(name).tolist() == value.numpy().tolist()
            continue
        tensor = bundle.tensor(name)
        assert str(tensor.dtype) == f"torch.{value.dtype.name}"
        assert tuple(tensor.shape) == tuple(value.shape)
        assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == value.numpy().tobytes()
        if entry.dtype.numpy is not None:
            assert bundle.numpy(name).tobytes() == value.numpy().tobytes()
            assert not bundle.numpy(name).flags.writeable


def test_tensors_are_views_of_the_file_that_never_reach_it(write: Callable[..., Path]) -> None:
    prefix = write({b"a": message()})
    bundle = Bundle(prefix)
    first, second = bundle.tensor("a"), bundle.tensor("a")
    assert first.data_ptr() == second.data_ptr()
    first += 1
    assert prefix.with_name("variables.data-00000-of-00001").read_bytes() == bytes(16)


def test_misaligned_tensors_are_copied(write: Callable[..., Path]) -> None:
    data = np.arange(4, dtype="<f4").tobytes()
    prefix = write({b"a": message(offset=1, crc32c=mask(crc32c(data)))}, b"\0" + data)
    bundle = Bundle(prefix)
    bundle.verify()
    assert bundle.tensor("a").tolist() == [0, 1, 2, 3]
    assert bundle.tensor("a").data_ptr() % 4 == 0
    assert bundle.numpy("a").tolist() == [0, 1, 2, 3]


def test_shards_and_slices(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    whole = tf.reshape(tf.range(7 * 300, dtype=tf.float32), [7, 300])
    cuts = [(0, 3, "0,3:-"), (3, 5, "3,2:-"), (5, 7, "5,2:-")]
    columns = [(0, 100, "-:0,100"), (100, 300, "-:100,200")]
    save = tf.raw_ops.SaveV2
    names, slices, tensors = ["rows"] * 3, [f"7 300 {cut}" for *_, cut in cuts], [whole[a:b] for a, b, _ in cuts]
    save(
        prefix=str(tmp_path / "a"),
        tensor_names=[*names, "b"],
        shape_and_slices=[*slices, ""],
        tensors=[*tensors, tf.constant(1)],
    )
    slices, tensors = [f"7 300 {cut}" for *_, cut in columns], [whole[:, a:b] for a, b, _ in columns]
    save(prefix=str(tmp_path / "c"), tensor_names=["columns"] * 2, shape_and_slices=slices, tensors=tensors)
    prefix = tmp_path / "variables"
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "a"), str(tmp_path / "c")], destination_prefix=str(prefix)
    )
    bundle = Bundle(prefix)
    bundle.verify()
    assert bundle.shard_path(1).name == "variables.data-00001-of-00002"
    assert set(bundle.entries) == {"rows", "columns", "b"}
    for name in ("rows", "columns"):
        assert bundle.numpy(name).tobytes() == whole.numpy().tobytes()
        assert bundle.tensor(name).numpy().tobytes() == whole.numpy().tobytes()
    bundle.shard_path(1).unlink()
    with pytest.raises(CorruptModelError, match=r"variables\.data-00001-of-00002: missing"):
        Bundle(prefix)


@pytest.mark.parametrize(
    "entries, error",
    [
        ({b"a": message(crc32c=1)}, "tensor 'a' at byte 0: checksum"),
        ({b"a": message(crc32c=crc32c(bytes(16)))}, "checksum"),  # not masked
        ({b"a": message(shape=[-4])}, r"shape \[-4\]"),
        ({b"a": message(shape=[-2, -2])}, "shape"),
        ({b"a": message(shape=[1 << 32, 1 << 32])}, "2\\*\\*63"),
        ({b"a": message(shape=[1 << 50])}, "16 bytes, expected 4503599627370496"),
        ({b"a": message(shape=[0, 1 << 62, 1 << 62])}, "2\\*\\*63"),
        ({b"a": message(shape=[1 << 40], dtype=7)}, "1099511627776 strings"),
        ({b"a": message(shape=[3])}, r"16 bytes, expected 12 for float32 \[3\]"),
        ({b"a": message(shape=[5])}, "16 bytes, expected 20"),
        ({b"a": message(offset=-1)}, "bytes -1 to 15"),
        ({b"a": message(size=-16)}, "bytes 0 to -16"),
        ({b"a": message(offset=1)}, "bytes 1 to 17"),
        ({b"a": message(offset=(1 << 63) - 1)}, "which has 16"),
        ({b"a": message(), b"b": message(offset=8, size=8, shape=[2])}, "inside 'a'"),
        ({b"a": message(), b"b": message()}, "inside 'a'"),
        ({b"a": message(shard_id=1)}, "shard 1, expected 0 to 0"),
        ({b"a": message(shard_id=-1)}, "shard -1"),
        ({b"a": message(dtype=99)}, "dtype number 99"),
        ({b"a": message(dtype=0)}, "invalid"),
        ({b"a": message(dtype=20)}, "resource"),
        ({b"a": message(dtype=21)}, "variant"),
    ],
)  # fmt: skip
def test_bad_entries_are_refused(write: Callable[..., Path], entries: dict[bytes, Any], error: str) -> None:
    with pytest.raises(PortingError, match=error) as caught:
        Bundle(write(entries)).verify()
    assert "variables." in str(caught.value)


def test_quantized_tensors_are_refused_by_name(write: Callable[..., Path]) -> None:
    bundle = Bundle(write({b"a": message(dtype=11, shape=[16])}))
    bundle.verify()
    for read in (bundle.numpy, bundle.tensor):
        with pytest.raises(PortingError, match="qint8"):
            read("a")


@pytest.mark.parametrize(
    "header, error",
    [
        ({"num_shards": 0}, "0 shards"),
        ({"num_shards": -1}, "-1 shards"),
        ({"num_shards": 10**9}, "1000000000 shards"),
        ({"num_shards": 2}, "00000-of-00002: missing"),
        ({"endianness": 1}, "endianness 1"),
        ({"version": {"producer": 9, "min_consumer": 9}}, "version 9"),
        ({"version": {"producer": 9, "bad_consumers": [1]}}, "version"),
    ],
)
def test_bad_headers_are_refused(write: Callable[..., Path], header: dict[str, Any], error: str) -> None:
    with pytest.raises(PortingError, match=error):
        Bundle(write({b"a": message()}, **header))


def test_an_index_without_a_header_is_refused(tmp_path: Path) -> None:
    from tests.porting.saved_model.tables import block, entry

    (tmp_path / "variables.index").write_bytes(table(block(entry(b"a", message().SerializeToString()))))
    with pytest.raises(CorruptModelError, match="header"):
        Bundle(tmp_path / "variables")


def test_a_longer_shard_is_a_warning(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    Bundle(write({b"a": message()}, bytes(20))).verify()
    assert "4 bytes after the last tensor" in caplog.text


def test_special_files_are_refused(write: Callable[..., Path]) -> None:
    prefix = write({b"a": message()})
    shard = prefix.with_name("variables.data-00000-of-00001")
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(CorruptModelError, match="not a regular file"):
        Bundle(prefix)


def strings(*words: bytes) -> tuple[bytes, int]:
    """(the bytes of a string tensor, its unmasked checksum)"""
    lengths = b"".join(len(word).to_bytes(4, "little") for word in words)
    tail = mask(crc32c(lengths)).to_bytes(4, "little") + b"".join(words)
    return b"".join(varint(len(word)) for word in words) + tail, crc32c(tail, crc32c(lengths))


def test_string_tensors(write: Callable[..., Path]) -> None:
    data, checksum = strings(b"ab", b"", b"\xff")
    good = message(dtype=7, shape=[3], size=len(data), crc32c=mask(checksum))
    assert Bundle(write({b"s": good}, data)).numpy("s").tolist() == [b"ab", b"", b"\xff"]
    for position in range(len(data)):
        for change in (1, 0x80):
            bad = bytearray(data)
            bad[position] ^= change
            with pytest.raises(CorruptModelError, match="'s'"):
                Bundle(write({b"s": good}, bytes(bad))).verify()
    with pytest.raises(CorruptModelError, match="need"):
        Bundle(write({b"s": message(dtype=7, shape=[2], size=len(data))}, data)).verify()


def sliced(shape: list[int], *extents: list[tuple[int, int | None]]) -> Any:
    entry = message(shape=shape, size=0)
    for extent in extents:
        proto = entry.slices.add()
        for start, length in extent:
            proto.extent.add(start=start, **({} if length is None else {"length": length}))
    return entry


def part_key(*numbers: int) -> bytes:
    """The stored key of a slice of the vector "a" with one small start and length."""
    return b"\x00a\x00\x01\x01\x01" + b"".join(
        bytes([0x80 ^ (number & 0xFF)]) if number >= 0 else b"\x7f" for number in numbers
    )


@pytest.mark.parametrize(
    "entries, error",
    [
        ({b"a": sliced([4], [(0, 4)])}, "missing"),
        ({b"a": sliced([4], [(0, 2)]), part_key(0, 2): message(shape=[2], size=8)}, "2 elements, expected 4"),
        ({b"a": sliced([4], [(0, 2)], [(1, 2)]), part_key(0, 2): message(shape=[2], size=8), part_key(1, 2): message(shape=[2], size=8, offset=8)}, "overlap"),
        ({b"a": sliced([4], [(3, 4)]), part_key(3, 4): message()}, "outside"),
        ({b"a": sliced([4], [(0, 4), (0, 4)])}, "rank 2"),
        ({b"a": sliced([4], [(0, 4)]), part_key(0, 4): message(dtype=3)}, "int32"),
        ({b"a": sliced([4], [(0, 4)]), part_key(0, 4): message(shape=[2, 2])}, r"\[2, 2\]"),
    ],
)  # fmt: skip
def test_bad_slices_are_refused(write: Callable[..., Path], entries: dict[bytes, Any], error: str) -> None:
    with pytest.raises(CorruptModelError, match=error):
        Bundle(write(entries))


def test_good_slices_are_put_together(write: Callable[..., Path]) -> None:
    data = np.arange(4, dtype="<f4").tobytes()
    parts = {
        part_key(0, 1): message(shape=[1], size=4, crc32c=mask(crc32c(data[:4]))),
        part_key(1, 3): message(shape=[3], size=12, offset=4, crc32c=mask(crc32c(data[4:]))),
    }
    bundle = Bundle(write({b"a": sliced([4], [(0, 1)], [(1, 3)])} | parts, data))
    bundle.verify()
    assert list(bundle.entries) == ["a"]
    assert bundle.numpy("a").tolist() == [0, 1, 2, 3]


def test_strange_keys_are_only_keys(write: Callable[..., Path]) -> None:
    keys = [b"../../etc/passwd", b"a\0b", b"k" * 65536, b"\xff\xfe", b"A/b", b"a/B"]
    entries = {key: message(offset=16 * i) for i, key in enumerate(keys)}
    bundle = Bundle(write(entries, bytes(16 * len(keys))))
    bundle.verify()
    assert {key.encode("utf-8", "surrogateescape") for key in bundle.entries} == set(keys)
