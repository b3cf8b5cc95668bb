"""Arrays in `.npz` files, strings among them, without pickle.

numpy's own fixed-width bytes lose trailing NULs, so an array of bytes is written as its bytes, joined, and their lengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_BYTES, _LENGTHS = "#bytes", "#lengths"


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Writes numbers and object arrays of bytes by their names."""
    flat: dict[str, np.ndarray[Any, Any]] = {}
    for name, array in arrays.items():
        if array.dtype == object:
            items = array.reshape(-1).tolist()
            flat[name + _BYTES] = np.frombuffer(b"".join(items), np.uint8)
            flat[name + _LENGTHS] = np.array([len(item) for item in items], np.int64).reshape(array.shape)
        else:
            flat[name] = array
    np.savez(path, **flat)  # type: ignore[reportArgumentType]


def load_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What `save_arrays` wrote, or any `.npz` of numbers and fixed-width strings; strings become object arrays of bytes."""
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, array in stored.items():
        if name.endswith(_BYTES):
            continue
        if name.endswith(_LENGTHS):
            base = name.removesuffix(_LENGTHS)
            arrays[base] = _split(stored[base + _BYTES].tobytes(), array)
        else:
            arrays[name] = as_strings(array) if array.dtype.kind in "SU" else array
    return arrays


def _split(data: bytes, lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    ends = np.cumsum(lengths.reshape(-1)).tolist()
    items = [data[end - length : end] for end, length in zip(ends, lengths.reshape(-1).tolist(), strict=True)]
    return _objects(items, lengths.shape)


def as_strings(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Text or fixed-width bytes as an object array of bytes."""
    items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.reshape(-1).tolist()]
    return _objects(items, array.shape)


def _objects(items: list[bytes], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    flat = np.empty(len(items), object)
    flat[:] = items
    return flat.reshape(shape)


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """A runtime value as numpy: tensors (bfloat16 as float32, which holds it exactly), strings and sizes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return value if isinstance(value, np.ndarray) else np.asarray(value)


def as_stored(value: np.ndarray[Any, Any] | torch.Tensor) -> Any:
    """A constant of a SavedModel as the store of a tower holds it: numbers as a tensor of their own, strings as they are."""
    return value if isinstance(value, torch.Tensor) or value.dtype == object else torch.from_numpy(np.array(value))
