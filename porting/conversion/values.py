"""The values that converters exchange: run-time values, constants, sizes, and resources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from porting.errors import PortingError
from torch_towers.formats.byte_strings import string
from torch_towers.graph.dtypes import dtype_name
from torch_towers.graph.graph import Size

LISTED = 1 << 20
"""Elements: larger constants are not converted to Python lists of sizes, axes or names."""


@dataclass(frozen=True, slots=True)
class Value:
    """A run-time value: a reference into the torch graph, with its inferred dtype and shape (None: unknown).

    Equal names in `shape` are equal sizes.
    """

    ref: str
    dtype: str | None
    shape: tuple[Size, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A value known at port time: a torch tensor, or a numpy object array of bytes.

    `name`: that of its node in the TF graph, if it may be a weight of a frozen graph.
    """

    array: Any
    name: str = ""

    @property
    def dtype(self) -> str:
        return dtype_name(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def python(self) -> Any:
        """The value as (nested lists of) Python numbers or bytes. Errors: `PortingError` for more than `LISTED`
        elements."""
        self.require_at_most(LISTED)
        return self.array.tolist()

    def require_at_most(self, elements: int) -> None:
        """Errors: `PortingError` for more elements: a splat in the file may have a shape of any size."""
        if math.prod(self.shape) > elements:
            raise PortingError(f"an operand of shape {list(self.shape)} is too large to be read at port time")


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """A small integer tensor of dimensions (rank 0 or 1, or paddings [n, 2]): elements are integers or run-time
    sizes."""

    items: np.ndarray[Any, np.dtype[np.object_]]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.items.shape)


class Dimensions(tuple[Any, ...]):
    """A converter's operand that is a list of sizes: integers and run-time sizes, or one tensor of unknown elements."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A variable or table at port time: `key` points into the SavedModel's variables or tables."""

    kind: str  # "variable" or "table"
    key: str


Operand = Value | Constant | Sizes | Resource | tuple[Any, ...]


def constant(value: Any, dtype: torch.dtype | None = None) -> Constant:
    """Numbers, lists of numbers, numpy arrays, bytes or tensors as a `Constant`."""
    if isinstance(value, bytes):
        return Constant(string(value))
    if isinstance(value, torch.Tensor):
        return Constant(value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return Constant(value)
    return Constant(torch.as_tensor(np.asarray(value) if dtype is None else value, dtype=dtype))
