"""Arrays in `.npz` files, strings among them, as `torch_towers.arrays` reads them; and values of both sides as numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torch_towers.arrays import BYTES, LENGTHS, as_strings, load_arrays


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Writes numbers and object arrays of bytes by their names."""
    flat: dict[str, np.ndarray[Any, Any]] = {}
    for name, array in arrays.items():
        if array.dtype == object:
            items = array.reshape(-1).tolist()
            flat[name + BYTES] = np.frombuffer(b"".join(items), np.uint8)
            flat[name + LENGTHS] = np.array([len(item) for item in items], np.int64).reshape(array.shape)
        else:
            flat[name] = array
    np.savez(path, **flat)  # type: ignore[reportArgumentType]


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """A runtime value as numpy: tensors (bfloat16 as float32, which holds it exactly), strings and sizes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return value if isinstance(value, np.ndarray) else np.asarray(value)


def as_stored(value: np.ndarray[Any, Any] | torch.Tensor) -> Any:
    """A constant of a SavedModel as the store of a tower holds it: numbers as a tensor of their own, strings as they are."""
    return value if isinstance(value, torch.Tensor) or value.dtype == object else torch.from_numpy(np.array(value))


__all__ = ["as_stored", "as_strings", "load_arrays", "save_arrays", "to_numpy"]
