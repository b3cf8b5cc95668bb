"""Byte strings in numpy: its fixed-width bytes lose trailing NULs, so a string tensor is an object array of `bytes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torch_towers.graph.registry import Strings


def strings(items: Sequence[Any], shape: Sequence[int] = (-1,)) -> Strings:
    """A flat list of bytes as a string tensor of `shape`, by default `[len(items)]`. Also takes other objects that are
    not sequences."""
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(tuple(shape))


def string(value: bytes) -> Strings:
    """A string scalar, `[]`."""
    return strings([value], ())
