"""What flows between converters: values known only at run time, constants, sizes, and resources."""

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
"""Elements: a constant of more is no list of sizes, axes or names, and is not made one."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value that exists at run time: a reference into the torch graph, and what is known of it (None: unknown).

    A named size in `shape` is the same number wherever the same name stands.
    """

    ref: str
    dtype: str | None
    shape: tuple[Size, ...] | None


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A value known at port time: a torch tensor, or a numpy object array of bytes."""

    array: Any

    @property
    def dtype(self) -> str:
        return dtype_name(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def python(self) -> Any:
        """The value as (nested lists of) Python numbers or bytes. Errors: `PortingError` where it has more than `LISTED` elements."""
        self.require_at_most(LISTED)
        return self.array.tolist()

    def require_at_most(self, elements: int) -> None:
        """Errors: `PortingError` where it has more: one value of the file may stand for a shape of any size."""
        if math.prod(self.shape) > elements:
            raise PortingError(f"an operand of shape {list(self.shape)} is too large to be read at port time")


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """A small integer tensor (of rank 0 or 1, or margins: [n, 2]) that holds dimensions: its elements are integers or run-time sizes."""

    items: np.ndarray[Any, np.dtype[np.object_]]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.items.shape)


class Dimensions(tuple[Any, ...]):
    """What a converter gets of an operand that is a list of sizes: integers and run-time sizes, or one tensor of unknown elements."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A variable or a table, passed around at port time: `key` points into the SavedModel's variables or tables."""

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
