"""Names: TensorFlow's scopes, cleaned once, by one function."""

from __future__ import annotations

import re
from collections.abc import Iterable

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


class Namer:
    """Gives each name once: `"dense"`, `"dense_2"`, ... Dotted names never run through a name that is taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def __call__(self, wanted: str) -> str:
        name = wanted
        count = self._counts.get(wanted, 1)
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._counts[wanted] = count
        self._taken.add(name)
        return name
