"""model.safetensors: written by the safetensors library, read by our own memory mapping.

Our own, because every shape must be checked against config.json before anything is allocated, on the same open file
that is then mapped; and because mapping each tensor privately avoids copies and ties no tensor to the others.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file  # type: ignore[reportUnknownVariableType]
from torch import Tensor

from torch_towers.checkpoint.graph_json import mapping, sequence
from torch_towers.errors import CheckpointError
from torch_towers.graph.dtypes import DTYPE_NAMES, TORCH_DTYPES

CODES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16", "BF16": "bfloat16",
    "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64", "C64": "complex64",
}  # fmt: skip
MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor's entry in config.json. complex128, which the format lacks, is stored as pairs of float64."""

    dtype: str
    shape: tuple[int, ...]
    trainable: bool = False

    @property
    def on_disk(self) -> tuple[str, tuple[int, ...]]:
        return ("float64", (*self.shape, 2)) if self.dtype == "complex128" else (self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Digest:
    """The size of model.safetensors, and the sha256 of the file and of its header."""

    size: int
    sha256: str
    header_sha256: str


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> Digest:
    """Writes the tensors without copying them; returns the digest of the file."""
    try:
        save_file({name: _writable(value) for name, value in tensors.items()}, path)
    except SafetensorError as error:  # e.g. a full disk
        code = re.search(r"os error (\d+)|code: (\d+)", str(error))
        if code is None:
            raise OSError(errno.EIO, str(error), str(path)) from error
        number = int(code[1] or code[2])
        raise OSError(number, os.strerror(number), str(path)) from error
    with open(path, "rb") as file:
        raw = file.read(8)
        header = raw + file.read(int.from_bytes(raw, "little"))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Digest(path.stat().st_size, digest, hashlib.sha256(header).hexdigest())


def _writable(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    return (torch.view_as_real(value) if value.dtype == torch.complex128 else value).contiguous()


def stored(value: Tensor, trainable: bool) -> Stored:
    """The entry of `value` in config.json."""
    return Stored(DTYPE_NAMES[value.dtype], tuple(value.shape), trainable)


def read_weights(
    file: BufferedReader, name: str, table: Mapping[str, Stored], digest: Digest, verify: bool
) -> dict[str, Tensor]:
    """The tensors of `table`, mapped copy-on-write: nothing is read before use.

    Always checks the size, the header's sha256, and that header and table agree. `verify` also checks the sha256 of the
    whole file.
    """
    size = os.fstat(file.fileno()).st_size
    if size != digest.size:
        raise CheckpointError(f"{name}: has {size} bytes; config.json says {digest.size}")
    raw = file.read(8)
    length = int.from_bytes(raw, "little")
    if len(raw) < 8 or length > min(size - 8, MAX_HEADER):
        raise CheckpointError(f"{name}: its header would end beyond the file, or is larger than {MAX_HEADER} bytes")
    header = file.read(length)
    if hashlib.sha256(raw + header).hexdigest() != digest.header_sha256:
        raise CheckpointError(f"{name}: the header's sha256 differs from config.json: the file was changed or damaged")
    if verify:
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != digest.sha256:
            raise CheckpointError(f"{name}: its sha256 differs from config.json: the file was changed or damaged")
    places = _places(header, name, table, size - 8 - length)
    if not any(end > begin for begin, end in places.values()):
        return {key: torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype]) for key, entry in table.items()}
    mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    return {key: _view(mapped, 8 + length + places[key][0], entry) for key, entry in table.items()}


def _view(mapped: mmap.mmap, offset: int, entry: Stored) -> Tensor:
    dtype, shape = entry.on_disk
    count = 1
    for axis in shape:
        count *= axis
    if not count:
        return torch.empty(entry.shape, dtype=TORCH_DTYPES[entry.dtype])
    kind = TORCH_DTYPES[dtype]
    if offset % kind.itemsize:  # the library aligns tensors; other writers may not
        flat = torch.frombuffer(bytearray(mapped[offset : offset + count * kind.itemsize]), dtype=kind)
    else:
        flat = torch.frombuffer(mapped, dtype=kind, count=count, offset=offset)
    value = flat.reshape(shape)
    return torch.view_as_complex(value) if entry.dtype == "complex128" else value


def _places(header: bytes, name: str, table: Mapping[str, Stored], size: int) -> dict[str, tuple[int, int]]:
    """The byte range of each tensor in the data; together they must cover it without gap or overlap."""
    entries = parse_json(header, f"{name}: header")
    entries = {key: value for key, value in mapping(entries, f"{name}: header").items() if key != "__metadata__"}
    if missing := sorted(table.keys() - entries.keys()):
        raise CheckpointError(f"{name}: lacks {missing[0]!r}, which config.json lists")
    if extra := sorted(entries.keys() - table.keys()):
        raise CheckpointError(f"{name}: holds {extra[0]!r}, which config.json does not list")
    places: dict[str, tuple[int, int]] = {}
    for key, value in entries.items():
        where = f"{name}: {key!r}"
        fields = mapping(value, where, {"dtype", "shape", "data_offsets"})
        shape, offsets = sequence(fields["shape"], where), sequence(fields["data_offsets"], where)
        if not all(type(n) is int and 0 <= n <= 1 << 62 for n in (*shape, *offsets)) or len(offsets) != 2:
            raise CheckpointError(f"{where} has the shape {shape} and the offsets {offsets}")
        dtype, expected = table[key].on_disk
        if CODES.get(str(fields["dtype"])) != dtype:
            raise CheckpointError(f"{where} is {fields['dtype']}; config.json says {dtype}")
        if tuple(shape) != expected:
            raise CheckpointError(f"{where} is {shape}; config.json says {list(expected)}")
        needed = TORCH_DTYPES[dtype].itemsize
        for axis in shape:
            needed *= axis
        if offsets[1] - offsets[0] != needed or offsets[1] > size:
            raise CheckpointError(f"{where} lies at {offsets}; it needs {needed} bytes within {size}")
        places[key] = (offsets[0], offsets[1])
    end = 0
    for begin, stop in sorted(places.values()):
        if begin != end:
            raise CheckpointError(f"{name}: the tensors overlap or leave a gap at byte {end} of the data")
        end = stop
    if end != size:
        raise CheckpointError(f"{name}: {size - end} bytes belong to no tensor")
    return places


def parse_json(data: bytes, where: str, values: int | None = None) -> Any:
    """Strict JSON: UTF-8, unique keys, finite numbers, bounded nesting; at most about `values` values.

    A parsed file of empty lists takes fifteen times its size in memory.
    """
    if values is not None and (count := sum(map(data.count, (b",", b"[", b"{")))) > values:
        raise CheckpointError(f"{where}: holds about {count} values, more than the limit of {values}")
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise CheckpointError(f"{where}: is nested too deeply") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CheckpointError(f"{where}: is not JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[reportGeneralTypeIssues]
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _no_constant(token: str) -> Any:
    raise ValueError(f"{token} is not a JSON number")


def _finite(token: str) -> float:
    value = float(token)
    if value - value != 0:
        raise ValueError(f"{token} is out of range")
    return value
