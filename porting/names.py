"""Names: TensorFlow's scopes, cleaned once, by one function."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

from torch_towers.program.binding import path

_CALLS = re.compile(r"^(StatefulPartitionedCall|PartitionedCall|ReadVariableOp|__inference.*|call)(_\d+)?$")
_WRAPPERS = re.compile(r"^(functional|model|sequential)(_\d+)*$")
_WEIGHTS = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias"}


def clean(name: str) -> str:
    """A TensorFlow scope as a dotted name: `"StatefulPartitionedCall/functional_1/dense_1/MatMul"` -> `"dense_1.MatMul"`.

    The names of calls and of the outermost Keras models say nothing and go; what is left matches `[A-Za-z0-9_]` per part.
    """
    parts = [part for part in name.split("/") if part and not _CALLS.match(part)]
    while len(parts) > 1 and _WRAPPERS.match(parts[0]):
        parts = parts[1:]
    return ".".join(identifier(part) for part in parts) or "value"


def weight_name(name: str) -> str:
    """A variable's clean name with PyTorch's word for its role: `"dense_1.kernel"` -> `"dense_1.weight"`."""
    scope, _, last = name.rpartition(".")
    word = _WEIGHTS.get(last, last)
    return f"{scope}.{word}" if scope else word


def identifier(part: str) -> str:
    """`part` with every character that a name cannot hold replaced by an underscore."""
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", part)
    return cleaned if re.match(r"[A-Za-z_]", cleaned) else f"_{cleaned}"


def outermost(names: Iterable[str]) -> str:
    """The model's own name, where every scope lies inside it: "query_1" of "query_1/dense/MatMul", "query_1/add"."""
    parts = [clean(name).split(".") for name in names]
    first = {part[0] for part in parts if len(part) > 1}
    return first.pop() if len(first) == 1 else ""


def place(name: str) -> str:
    """Where a tensor or layer of this name lies in the tree of modules: "type" lies at "type_"."""
    return ".".join(path(name))


def spaced(wanted: str, is_tensor: Callable[[str], bool], clashes: Callable[[str], bool]) -> str:
    """`wanted` with a number behind each part that needs one: no scope of it `is_tensor`, and the whole does not clash."""
    scope = ""
    *scopes, last = wanted.split(".")
    for part in scopes:
        scope = numbered(scope + part, is_tensor) + "."
    return numbered(scope + last, clashes)


def numbered(wanted: str, clashes: Callable[[str], bool], start: int = 1) -> str:
    """`wanted`, or the first of `"wanted_2"`, `"wanted_3"`, ... that does not clash."""
    names = (wanted if count == 1 else f"{wanted}_{count}" for count in itertools.count(start))
    return next(name for name in names if not clashes(name))


class Namer:
    """Gives each name once: `"dense"`, `"dense_2"`, ..."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}
        self._tensors: set[str] = set()  # where they lie in the tree of modules
        self._scopes: set[str] = set()  # what lies around them there

    def __call__(self, wanted: str) -> str:
        name = numbered(wanted, self._taken.__contains__, self._counts.get(wanted, 1))
        self._counts[wanted] = int(name[len(wanted) + 1 :] or 1)
        self._taken.add(name)
        return name

    def tensor(self, wanted: str) -> str:
        """The name of a weight or constant. They lie in one tree, so none lies inside another: `"scale_2.bias"` beside `"scale"`."""
        name = spaced(wanted, self._is_tensor, lambda name: name in self._taken or self._lies_there(name))
        self._taken.add(name)
        self._tensors.add(place(name))
        self._scopes.update(itertools.accumulate(path(name)[:-1], lambda scope, part: f"{scope}.{part}"))
        return name

    def given(self) -> list[dict[str, int] | set[str]]:
        """All that it remembers of the names that it gave."""
        return [self._counts, self._taken, self._tensors, self._scopes]

    def _is_tensor(self, name: str) -> bool:
        return place(name) in self._tensors

    def _lies_there(self, name: str) -> bool:
        return self._is_tensor(name) or place(name) in self._scopes
