"""Arrays in `.npz` files, strings among them, read without pickle.

numpy's own fixed-width bytes lose trailing NULs, so an array of bytes may be written as its bytes, joined, and their lengths.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from torch_towers.errors import InputError

BYTES, LENGTHS = "#bytes", "#lengths"

Array = np.ndarray[Any, Any]


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a `.npz` file by their names: numbers as they are, strings as object arrays of bytes.

    Strings are fixed-width, or `<name>#bytes` (all joined) with `<name>#lengths`. Errors: `InputError` names the file and the array.
    """
    stored = _stored(path)
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
    return objects(items, array.shape)


def objects(items: list[bytes], shape: tuple[int, ...]) -> Array:
    """An object array of bytes."""
    flat = np.empty(len(items), object)
    flat[:] = items
    return flat.reshape(shape)


def _stored(path: Path) -> dict[str, Array]:
    name = ""
    try:
        if not zipfile.is_zipfile(path):  # else numpy would take it for one array, or for a pickle
            with path.open("rb"):
                raise InputError(f"{path}: is not a .npz file, as numpy.savez writes it")
        stored: dict[str, Array] = {}
        with np.load(path, allow_pickle=False) as file:
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
    return objects(items, lengths.shape)
