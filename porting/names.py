"""Cleans TensorFlow's scopes to dotted names, in one place."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

from torch_towers.graph.names import numbered
from torch_towers.program.binding import path

_CALLS = re.compile(r"^(StatefulPartitionedCall|PartitionedCall|ReadVariableOp|__inference.*|call)(_\d+)?$")
_WRAPPERS = re.compile(r"^(functional|model|sequential)(_\d+)*$")
_WEIGHTS = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias"}


def clean(name: str) -> str:
    """A TensorFlow scope as a dotted name: `"StatefulPartitionedCall/functional_1/dense_1/MatMul"` ->
    `"dense_1.MatMul"`.

    Calls and outermost Keras models are dropped from the name; the parts that remain match `[A-Za-z0-9_]`.
    """
    parts = [part for part in name.split("/") if part and not _CALLS.match(part)]
    while len(parts) > 1 and _WRAPPERS.match(parts[0]):
        parts = parts[1:]
    return ".".join(identifier(part) for part in parts) or "value"


def weight_name(name: str) -> str:
    """A variable's clean name with PyTorch's term for its role: `"dense_1.kernel"` -> `"dense_1.weight"`."""
    scope, _, last = name.rpartition(".")
    word = _WEIGHTS.get(last, last)
    return f"{scope}.{word}" if scope else word


def identifier(part: str) -> str:
    """`part` with invalid characters replaced by underscores."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", part)
    return cleaned if re.match(r"[A-Za-z_]", cleaned) else f"_{cleaned}"


def outermost(names: Iterable[str]) -> str:
    """The model's own name, if it is the outermost scope of all names: "query_1" of "query_1/dense/MatMul",
    "query_1/add"."""
    parts = [clean(name).split(".") for name in names]
    first = {part[0] for part in parts if len(part) > 1}
    return first.pop() if len(first) == 1 else ""


def place(name: str) -> str:
    """The path of a tensor or layer in the module tree: "type" becomes "type_"."""
    return ".".join(path(name))


def spaced(wanted: str, is_tensor: Callable[[str], bool], clashes: Callable[[str], bool]) -> str:
    """`wanted`, with numbers after parts as needed, so that none of its scopes `is_tensor` and the whole does not
    clash."""
    scope = ""
    *scopes, last = wanted.split(".")
    for part in scopes:
        scope = numbered(scope + part, is_tensor) + "."
    return numbered(scope + last, clashes)


class Namer:
    """Makes names unique: `"dense"`, `"dense_2"`, ..."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}
        self._tensors: set[str] = set()  # their paths in the module tree
        self._scopes: set[str] = set()  # the scopes around them

    def __call__(self, wanted: str) -> str:
        name = numbered(wanted, self._taken.__contains__, self._counts.get(wanted, 1))
        self._counts[wanted] = int(name[len(wanted) + 1 :] or 1)
        self._taken.add(name)
        return name

    def tensor(self, wanted: str) -> str:
        """A unique name of a weight or constant. They form one tree, so none may be inside another: `"scale_2.bias"`
        beside `"scale"`."""
        name = spaced(wanted, self._is_tensor, lambda name: name in self._taken or self._lies_there(name))
        self._taken.add(name)
        self._tensors.add(place(name))
        self._scopes.update(itertools.accumulate(path(name)[:-1], lambda scope, part: f"{scope}.{part}"))
        return name

    def given(self) -> list[dict[str, int] | set[str]]:
        """The state that determines future names."""
        return [self._counts, self._taken, self._tensors, self._scopes]

    def _is_tensor(self, name: str) -> bool:
        return place(name) in self._tensors

    def _lies_there(self, name: str) -> bool:
        return self._is_tensor(name) or place(name) in self._scopes
