"""Variables: which tensor of the checkpoint is the value of which variable of the graph."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from porting.errors import CorruptModelError
from porting.saved_model.bundle import Bundle

VARIABLE_OPS = frozenset(("VarHandleOp", "VariableV2", "Variable"))
VALUE_ATTRIBUTE = "VARIABLE_VALUE"
_SUFFIX = "/.ATTRIBUTES/" + VALUE_ATTRIBUTE


class Variable:
    """A variable: its clean name, where its value lies in the checkpoint, and that value as a view of the file."""

    __slots__ = ("_bundle", "_slice", "checkpoint_key", "dtype", "name", "shape", "trainable")

    def __init__(
        self, bundle: Bundle, name: str, checkpoint_key: str, trainable: bool, part: tuple[slice, ...] | None = None
    ) -> None:
        entry = bundle.entries[checkpoint_key]
        self._bundle = bundle
        self._slice = part
        self.name = name
        self.checkpoint_key = checkpoint_key
        self.dtype: str = entry.dtype.name
        self.shape: tuple[int, ...] = entry.shape if part is None else tuple(index.stop - index.start for index in part)
        self.trainable = trainable

    def numpy(self) -> np.ndarray:
        """The value, read-only; strings as an object array of bytes."""
        value = self._bundle.numpy(self.checkpoint_key)
        return value if self._slice is None else value[self._slice]

    def tensor(self) -> torch.Tensor:
        """The value as a torch tensor over the memory-mapped file. What is written to it never reaches the file."""
        value = self._bundle.tensor(self.checkpoint_key)
        return value if self._slice is None else value[self._slice]

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.dtype} {list(self.shape)}, checkpoint_key={self.checkpoint_key!r})"


def clean_name(name: str) -> str:
    """ "dense/kernel" of "dense/kernel:0" and of "layer-1/kernel/.ATTRIBUTES/VARIABLE_VALUE"."""
    return re.sub(r":\d+$", "", name).removesuffix(_SUFFIX)


def parse_slice(spec: str, shape: tuple[int, ...], where: str) -> tuple[slice, ...] | None:
    """The part of a tensor of `shape` that "100 8 0,50:-" names: rows 0 to 49, all columns. None for "", the whole."""
    if not spec:
        return None
    *sizes, extents = spec.split(" ")
    try:
        whole = tuple(int(size) for size in sizes)
        pairs = [
            (0, size) if extent == "-" else tuple(int(number) for number in extent.split(","))
            for extent, size in zip(extents.split(":"), whole, strict=True)
        ]
        part = tuple(slice(start, start + length) for start, length in pairs)
    except ValueError as error:
        raise CorruptModelError(f"{where}: slice {spec!r}, expected the form '100 8 0,50:-'") from error
    if whole != shape or any(
        not 0 <= index.start <= index.stop <= size for index, size in zip(part, whole, strict=True)
    ):
        raise CorruptModelError(f"{where}: slice {spec!r} does not fit the checkpoint's shape {list(shape)}")
    return part


def object_paths(nodes: Any, where: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(id, path from the root) of every object that children reach, breadth first, each once by its shortest path. Cycles are legal."""
    paths: dict[int, tuple[str, ...]] = {0: ()} if len(nodes) else {}
    queue = list(paths)
    for current in queue:
        yield current, paths[current]
        for child in nodes[current].children:
            check_object_id(child.node_id, nodes, f"{where}: object {current}, child '{child.local_name}'")
            if child.node_id not in paths:
                paths[child.node_id] = (*paths[current], child.local_name)
                queue.append(child.node_id)


def check_object_id(node_id: int, nodes: Any, where: str) -> None:
    if not 0 <= node_id < len(nodes):
        raise CorruptModelError(f"{where}: object {node_id}, expected 0 to {len(nodes) - 1}")


def match_objects(saved: Any, trackable: Any, where: str) -> dict[int, int]:
    """Object of the SavedObjectGraph -> object of the checkpoint's TrackableObjectGraph, by walking the children of both from the root."""
    matched: dict[int, int] = {0: 0} if len(saved) and len(trackable) else {}
    queue = list(matched)
    for current in queue:
        ours = trackable[matched[current]]
        by_name: Mapping[str, int] = {child.local_name: child.node_id for child in ours.children}
        for child in saved[current].children:
            check_object_id(child.node_id, saved, f"{where}: object {current}, child '{child.local_name}'")
            if child.local_name not in by_name:
                continue
            other = by_name[child.local_name]
            check_object_id(
                other, trackable, f"{where}: checkpoint object {matched[current]}, child '{child.local_name}'"
            )
            if child.node_id not in matched:
                matched[child.node_id] = other
                queue.append(child.node_id)
    return matched
