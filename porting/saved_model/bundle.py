"""The tensor bundle: `variables.index`, a sorted table of entries, and the raw shards `variables.data-?????-of-?????`.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc, tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import protos
from porting.saved_model.decode import static_shape
from porting.saved_model.dtypes import DType, dtype_of
from porting.saved_model.files import read_regular_file, regular_file_size
from porting.saved_model.packed import packed_lengths, packed_strings
from porting.saved_model.sstable import crc32c, read_table, unmask

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
Progress = Callable[[int, int], None]  # called with (bytes done, bytes in all)

_log = logging.getLogger(__name__)
_CHUNK = 1 << 22
_MAX_SHARDS = 100_000
_MAX_SLICES = 4096
_VERSION = 1  # of the bundles that TensorFlow writes and we read
_MAX_INDEX = 1 << 30


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor is stored. A sliced tensor has no bytes of its own: `slices` has (starts, sizes, entry) of each
    slice."""

    key: str
    dtype: DType
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[tuple[tuple[int, ...], tuple[int, ...], Entry], ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(entry.size for _, _, entry in self.slices) if self.slices else self.size


class Bundle:
    """The tensors of one checkpoint, by key. Opening validates the whole index; `verify` validates the data as well."""

    def __init__(self, prefix: Path) -> None:
        """Opens `<prefix>.index` and its shards. Raises CorruptModelError."""
        self.prefix = prefix
        self.index = prefix.with_name(prefix.name + ".index")
        table = read_table(read_regular_file(self.index, _MAX_INDEX), str(self.index))
        if b"" not in table:
            raise CorruptModelError(f"{self.index}: no header entry, so this is not the index of a tensor bundle")
        self._num_shards = _check_header(
            protos.parse("BundleHeaderProto", table.pop(b""), f"{self.index}: header"), str(self.index)
        )
        self._maps: dict[int, mmap.mmap] = {}
        self._sizes: dict[int, int] = {}
        messages = {
            key: protos.parse("BundleEntryProto", value, f"{self.index}: entry {_text(key)!r}")
            for key, value in table.items()
        }
        stored = {key: self._entry(key, message) for key, message in messages.items() if not message.slices}
        self._stored = tuple(stored.values())
        self._check_overlaps()
        sliced = {key: self._sliced_entry(key, message, stored) for key, message in messages.items() if message.slices}
        parts = {part.key for entry in sliced.values() for _, _, part in entry.slices}
        whole = [entry for entry in (stored | sliced).values() if entry.key not in parts]
        self.entries: Mapping[str, Entry] = {entry.key: entry for entry in sorted(whole, key=lambda entry: entry.key)}

    def _where(self, key: str) -> str:
        return f"{self.index}: entry {key!r}"

    def shard_path(self, shard: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{shard:05d}-of-{self._num_shards:05d}")

    def _entry(self, raw_key: bytes, message: Any) -> Entry:
        key = _text(raw_key)
        where = self._where(key)
        dtype = dtype_of(message.dtype, where)
        shape = static_shape(message.shape, where)
        if not 0 <= message.shard_id < self._num_shards:
            raise CorruptModelError(f"{where}: shard {message.shard_id}, expected 0 to {self._num_shards - 1}")
        file_size = self._shard_size(message.shard_id)
        if message.offset < 0 or message.size < 0 or message.offset + message.size > file_size:
            raise CorruptModelError(
                f"{where}: bytes {message.offset} to {message.offset + message.size} of {self.shard_path(message.shard_id).name}, which has {file_size}; "
                "the shard is truncated or does not belong to this index"
            )
        count = math.prod(shape)
        if dtype.itemsize and message.size != count * dtype.itemsize:
            raise CorruptModelError(
                f"{where}: {message.size} bytes, expected {count * dtype.itemsize} for {dtype.name} {list(shape)}"
            )
        if dtype.name == "string" and message.size < count + 4:
            raise CorruptModelError(
                f"{where}: {message.size} bytes, expected at least {count + 4} for {count} strings and their checksum"
            )
        return Entry(key, dtype, shape, message.shard_id, message.offset, message.size, message.crc32c)

    def _shard_size(self, shard: int) -> int:
        if shard not in self._sizes:
            path = self.shard_path(shard)
            self._sizes[shard] = regular_file_size(path)
        return self._sizes[shard]

    def _check_overlaps(self) -> None:
        ends: dict[int, tuple[int, str]] = {}
        for entry in sorted(self._stored, key=lambda entry: (entry.shard, entry.offset)):
            end, previous = ends.get(entry.shard, (0, ""))
            if entry.size and entry.offset < end:
                raise CorruptModelError(
                    f"{self._where(entry.key)}: begins at byte {entry.offset}, inside {previous!r}, which ends at byte {end}"
                )
            if entry.size:
                ends[entry.shard] = (entry.offset + entry.size, entry.key)
        for shard, (end, _) in ends.items():
            if end < self._sizes[shard]:
                _log.warning(
                    "%s: %d bytes after the last tensor belong to none",
                    self.shard_path(shard),
                    self._sizes[shard] - end,
                )

    def _sliced_entry(self, raw_key: bytes, message: Any, stored: Mapping[bytes, Entry]) -> Entry:
        key = _text(raw_key)
        where = self._where(key)
        dtype = dtype_of(message.dtype, where)
        shape = static_shape(message.shape, where)
        if len(message.slices) > _MAX_SLICES:
            raise PortingError(f"{where}: {len(message.slices)} slices, at most {_MAX_SLICES} are supported")
        slices: list[tuple[tuple[int, ...], tuple[int, ...], Entry]] = []
        for proto in message.slices:
            extents = [
                (extent.start, extent.length if extent.WhichOneof("has_length") else -1) for extent in proto.extent
            ]
            if len(extents) != len(shape):
                raise CorruptModelError(f"{where}: a slice of rank {len(extents)}, expected {len(shape)}")
            part = stored.get(_slice_key(raw_key, extents))
            if part is None:
                raise CorruptModelError(f"{where}: its slice {extents} is missing from the index")
            starts = tuple(start for start, _ in extents)
            sizes = tuple(whole if length == -1 else length for (_, length), whole in zip(extents, shape, strict=True))
            if part.shape != sizes or part.dtype.name != dtype.name:
                raise CorruptModelError(
                    f"{where}: its slice {extents} is {part.dtype.name} {list(part.shape)}, expected {dtype.name} {list(sizes)}"
                )
            if any(start < 0 or start + size > whole for start, size, whole in zip(starts, sizes, shape, strict=True)):
                raise CorruptModelError(f"{where}: slice {extents} reaches outside shape {list(shape)}")
            slices.append((starts, sizes, part))
        _check_coverage(slices, shape, where)
        return Entry(key, dtype, shape, 0, 0, 0, 0, tuple(slices))

    # The data

    def verify(self, progress: Progress | None = None) -> None:
        """Checks the CRC32C of every tensor, reading the shards through one small buffer. Raises CorruptModelError."""
        total = sum(entry.size for entry in self._stored)
        done = 0
        files: dict[int, BinaryIO] = {}
        try:
            for entry in sorted(self._stored, key=lambda entry: (entry.shard, entry.offset)):
                if entry.shard not in files:
                    files[entry.shard] = self.shard_path(entry.shard).open("rb")
                if entry.dtype.name == "string":
                    self._verify_strings(entry)
                else:
                    for count in self._verify_numbers(entry, files[entry.shard]):
                        if progress is not None:
                            progress(done + count, total)
                done += entry.size
                if progress is not None:
                    progress(done, total)
        finally:
            for file in files.values():
                file.close()

    def _verify_numbers(self, entry: Entry, file: BinaryIO) -> Iterator[int]:
        if not entry.dtype.itemsize:
            raise PortingError(
                f"{self._where(entry.key)}: dtype {entry.dtype.name}, which is not supported in a checkpoint"
            )
        file.seek(entry.offset)
        checksum, left = 0, entry.size
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise CorruptModelError(f"{self.shard_path(entry.shard)}: ended while tensor {entry.key!r} was read")
            checksum = crc32c(chunk, checksum)
            left -= len(chunk)
            yield entry.size - left
        self._check(entry, checksum)

    def _check(self, entry: Entry, checksum: int) -> None:
        if checksum != unmask(entry.checksum):
            raise CorruptModelError(
                f"{self.shard_path(entry.shard)}: tensor {entry.key!r} at byte {entry.offset}: checksum {checksum:08x}, expected "
                f"{unmask(entry.checksum):08x}; the data are damaged, fetch the file again"
            )

    def _bytes(self, entry: Entry) -> memoryview:
        if entry.size == 0:
            return memoryview(b"")
        if entry.shard not in self._maps:
            with self.shard_path(entry.shard).open("rb") as file:
                # Mapped copy-on-write: torch wants writable memory, and writes never reach the file.
                self._maps[entry.shard] = mmap.mmap(file.fileno(), self._sizes[entry.shard], access=mmap.ACCESS_COPY)
        return memoryview(self._maps[entry.shard])[entry.offset : entry.offset + entry.size]

    def _verify_strings(self, entry: Entry) -> int:
        """Checks the lengths and checksums of a string tensor, and gives the place of its first string.

        Layout: varint lengths, the masked CRC32C of the lengths, the bytes of all strings.
        """
        data = self._bytes(entry)
        where = self._where_stored(entry)
        checksum = position = total = 0
        for lengths, end in packed_lengths(data, math.prod(entry.shape), where):
            position = end
            total += int(lengths.sum())
            checksum = crc32c(_fixed(lengths), checksum)
        if position + 4 + total != len(data):
            raise CorruptModelError(f"{where}: its strings need {position + 4 + total} bytes, expected {len(data)}")
        stored = unmask(int.from_bytes(data[position : position + 4], "little"))
        if stored != checksum:
            raise CorruptModelError(f"{where}: the checksum of the lengths is {checksum:08x}, expected {stored:08x}")
        self._check(entry, crc32c(data[position:], checksum))
        return position + 4

    def _where_stored(self, entry: Entry) -> str:
        return f"{self.shard_path(entry.shard)}: string tensor {entry.key!r} at byte {entry.offset}"

    def _strings(self, entry: Entry) -> np.ndarray:
        """An object array of bytes, verified."""
        start = self._verify_strings(entry)
        data, count = self._bytes(entry), math.prod(entry.shape)
        lengths = (block for block, _ in packed_lengths(data, count, self._where_stored(entry)))
        return packed_strings(data, start, lengths, count).reshape(entry.shape)

    def numpy(self, key: str) -> np.ndarray:
        """The tensor `key`, read-only: a view of the file if it is stored whole; strings are an object array of
        bytes."""
        entry = self.entries[key]
        if entry.dtype.numpy is None:
            raise PortingError(f"{self._where(key)}: numpy has no dtype {entry.dtype.name}, read it as a torch tensor")
        array = self._array(entry, entry.dtype.numpy)
        array.flags.writeable = False
        return array

    def tensor(self, key: str) -> torch.Tensor:
        """The tensor `key`: a view of the file if it is stored whole and aligned. Writes to it never reach the file."""
        entry = self.entries[key]
        if entry.dtype.torch is None:
            raise PortingError(f"{self._where(key)}: torch has no dtype {entry.dtype.name}")
        storage = entry.dtype.numpy or np.dtype(f"<i{entry.dtype.itemsize}")
        if not entry.slices and entry.offset % storage.itemsize:
            return torch.from_numpy(self._aligned(entry, storage)).view(entry.dtype.torch)
        return torch.from_numpy(self._array(entry, storage)).view(entry.dtype.torch)

    def _array(self, entry: Entry, dtype: np.dtype) -> np.ndarray:
        if dtype.hasobject:
            return self._strings(entry)
        if not entry.slices:
            return (
                np.frombuffer(self._bytes(entry), dtype).reshape(entry.shape)
                if entry.size
                else np.empty(entry.shape, dtype)
            )
        array = np.empty(entry.shape, dtype)
        for starts, sizes, part in entry.slices:
            array[tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))] = self._array(
                part, dtype
            )
        return array

    def _aligned(self, entry: Entry, dtype: np.dtype) -> np.ndarray:
        """A copy, read instead of mapped, so that a large tensor is in memory only once."""
        array = np.empty(entry.shape, dtype)
        with self.shard_path(entry.shard).open("rb") as file:
            file.seek(entry.offset)
            if file.readinto(array.reshape(-1).view(np.uint8)) != entry.size:  # type: ignore[reportArgumentType]  # numpy arrays are buffers
                raise CorruptModelError(f"{self.shard_path(entry.shard)}: ended while tensor {entry.key!r} was read")
        return array


def _fixed(lengths: np.ndarray) -> bytes:
    """The lengths as their checksum takes them: 4 bytes each, or 8 from 2**32 on."""
    if (lengths >> 32).any():
        return b"".join(length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths.tolist())
    return lengths.astype("<u4").tobytes()


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def _check_header(header: Any, where: str) -> int:
    """Validates the header and returns the number of shards."""
    if not 1 <= header.num_shards <= _MAX_SHARDS:
        raise CorruptModelError(f"{where}: {header.num_shards} shards, expected 1 to {_MAX_SHARDS}")
    if header.endianness != 0:
        raise PortingError(
            f"{where}: endianness {header.endianness}, expected 0 (little); a big-endian checkpoint must be saved again on a little-endian machine"
        )
    if header.version.min_consumer > _VERSION or _VERSION in header.version.bad_consumers:
        raise PortingError(
            f"{where}: needs a reader of version {header.version.min_consumer}, expected {_VERSION} or below"
        )
    return header.num_shards


def _slice_key(key: bytes, extents: Sequence[tuple[int, int]]) -> bytes:
    """The key under which a slice is stored. Source: EncodeTensorNameSlice in
    tensorflow/core/util/saved_tensor_slice_util.cc."""
    escaped = (
        key.replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff") if b"\x00" in key or b"\xff" in key else key
    )
    encoded = _ordered_unsigned(0) + escaped + b"\x00\x01" + _ordered_unsigned(len(extents))
    return encoded + b"".join(_ordered_signed(number) for extent in extents for number in extent)


def _ordered_unsigned(value: int) -> bytes:
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def _ordered_signed(value: int) -> bytes:
    """OrderedCode::WriteSignedNumIncreasing: the number of leading one bits is the number of bytes, as in UTF-8."""
    size = (value if value >= 0 else ~value).bit_length() // 7 + 1
    header = ((1 << size) - 1) << (8 * size - size)  # `size` ones, then zeros
    return ((value ^ header) & ((1 << 8 * size) - 1)).to_bytes(size, "big")


def _check_coverage(
    slices: Sequence[tuple[tuple[int, ...], tuple[int, ...], Entry]], shape: tuple[int, ...], where: str
) -> None:
    """Checks that the slices cover `shape`, each element exactly once."""
    covered = sum(math.prod(sizes) for _, sizes, _ in slices)
    if covered != math.prod(shape):
        raise CorruptModelError(
            f"{where}: its {len(slices)} slices hold {covered} elements, expected {math.prod(shape)} for shape {list(shape)}"
        )
    starts = np.array([start for start, _, _ in slices], np.int64).reshape(len(slices), -1)
    ends = starts + np.array([size for _, size, _ in slices], np.int64).reshape(len(slices), -1)
    for i in range(len(slices)):
        overlaps = ((starts[i] < ends[i + 1 :]) & (starts[i + 1 :] < ends[i])).all(axis=1)
        if overlaps.any() and covered:
            raise CorruptModelError(f"{where}: its slices {i} and {i + 1 + int(overlaps.argmax())} overlap")
