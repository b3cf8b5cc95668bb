"""Arrays in `.npz` files, including strings, without pickle.

numpy's fixed-width bytes lose trailing NULs, so an array of bytes is written as the joined bytes and their lengths.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch_towers.errors import InputError
from torch_towers.formats.byte_strings import strings

BYTES, LENGTHS = "#bytes", "#lengths"

Array = np.ndarray[Any, Any]
LIMIT = 4 << 30  # total bytes of a file's arrays, as declared in the file


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes numbers and object arrays of bytes by name."""
    np.savez(path, **_flat(arrays))  # type: ignore[reportArgumentType]


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """The compressed bytes that `save_arrays` writes; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_flat(arrays))  # type: ignore[reportArgumentType]
    return buffer.getvalue()


def _flat(arrays: Mapping[str, Array]) -> dict[str, Array]:
    flat: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.dtype == object:
            items: list[bytes] = array.reshape(-1).tolist()
            flat[name + BYTES] = np.frombuffer(b"".join(items), np.uint8)
            flat[name + LENGTHS] = np.array([len(item) for item in items], np.int64).reshape(array.shape)
        else:
            flat[name] = array
    return flat


def load_arrays(path: Path, data: bytes | None = None, limit: int = LIMIT) -> dict[str, Array]:
    """The arrays of a `.npz` file by name: numbers unchanged, strings as object arrays of bytes.

    Strings are fixed-width, or `<name>#bytes` (joined) with `<name>#lengths`. `data`: the content of the file, if it is
    already read. `limit`: maximum total bytes of the arrays. Errors: `InputError` names the file and the array.
    """
    stored = _stored(path, path if data is None else io.BytesIO(data), limit)
    arrays: dict[str, Array] = {}
    for name, array in stored.items():
        if name.endswith(LENGTHS):
            base = name.removesuffix(LENGTHS)
            arrays[base] = _split(stored, base, array, path)
        elif array.dtype.kind in "SU":
            arrays[name] = as_strings(array)
        elif not name.endswith(BYTES):
            arrays[name] = array
    return arrays


def as_strings(array: Array) -> Array:
    """Text or fixed-width bytes as an object array of bytes."""
    items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.reshape(-1).tolist()]
    return strings(items, array.shape)


def _stored(path: Path, source: Path | io.BytesIO, limit: int) -> dict[str, Array]:
    name = ""
    try:
        if not zipfile.is_zipfile(source):  # numpy would accept a single array or a pickle
            if isinstance(source, Path):
                source.open("rb").close()
            raise InputError(f"{path}: is not a .npz file, as numpy.savez writes it")
        with zipfile.ZipFile(source) as file:  # checked before numpy allocates: a small file may declare any size
            declared = sum(item.file_size for item in file.infolist())
        if declared > limit:
            raise InputError(f"{path}: its arrays have {declared} bytes, more than the limit of {limit}")
        stored: dict[str, Array] = {}
        with np.load(source, allow_pickle=False) as file:
            for name in file.files:
                stored[name] = file[name]
        return stored
    except (ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        where = f"{path}: {name!r}" if name else str(path)
        if "allow_pickle" in str(error):
            why = (
                "holds Python objects, which are pickled: save texts with numpy.array(texts, dtype=str) or dtype=bytes"
            )
            raise InputError(f"{where}: {why}") from error
        raise InputError(f"{where}: cannot be read: {error}") from error


def _split(stored: Mapping[str, Array], name: str, lengths: Array, path: Path) -> Array:
    joined = stored.get(name + BYTES)
    if joined is None or joined.dtype != np.uint8 or lengths.dtype.kind not in "iu":
        raise InputError(f"{path}: {name + LENGTHS!r} needs {name + BYTES!r}, the bytes of all strings, beside it")
    sizes: list[int] = lengths.reshape(-1).tolist()
    if min(sizes, default=0) < 0 or sum(sizes) != joined.size:
        raise InputError(f"{path}: {name + LENGTHS!r} does not add up to the {joined.size} bytes of {name + BYTES!r}")
    data, items, end = joined.tobytes(), list[bytes](), 0
    for size in sizes:
        items.append(data[end : end + size])
        end += size
    return strings(items, lengths.shape)


def to_numpy(value: Any) -> Array:
    """A runtime value as numpy: tensors (bfloat16 as float32, which is exact), strings and sizes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return value if isinstance(value, np.ndarray) else np.asarray(value)  # type: ignore[reportUnknownVariableType]


def as_stored(value: Array | torch.Tensor) -> Any:
    """A constant of a SavedModel for a tower's store: numbers as a tensor that owns its memory, strings unchanged."""
    if isinstance(value, torch.Tensor) or value.dtype == object:
        return value
    return torch.from_numpy(np.array(value))  # type: ignore[reportUnknownMemberType]
