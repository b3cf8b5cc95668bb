"""Graph, Node and TensorSpec: what a tower computes, as plain data.

One class, two vocabularies: before `porting.conversion.convert` the ops are TensorFlow's ("GatherV2"), after it they are the entries of
`torch_towers.ops` ("gather") and the modules of `torch_towers.layers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Size = int | str | None  # 64, a named free size such as "batch", or unknown
Operand = Any  # a reference ("dense_1", "top_k:1"), a literal (int, float, bool, None), or a tuple of operands


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, dtype ("float32", "string", ...) and shape of a tensor; `shape` is None where even the rank is free."""

    name: str
    dtype: str
    shape: tuple[Size, ...] | None


BATCH = "batch"
"""The name of the size along which the rows of a batch lie. An input whose first size has another name has rows of its own."""


def rows_of(spec: TensorSpec) -> str:
    """The name of the rows that an input has: inputs of one name have equally many. Empty where it has none."""
    size = spec.shape[0] if spec.shape else None
    return size if isinstance(size, str) else ""


def is_batched(spec: TensorSpec) -> bool:
    """True for an input or output that has one element per row of the batch."""
    return rows_of(spec) == BATCH


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `inputs` hold references to other nodes and literals; `attrs` hold constants only."""

    name: str
    op: str
    inputs: tuple[Operand, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """A module of the closed table `torch_towers.layers`: its type and its constructor's arguments.

    Arguments that are tensors or vocabularies are given by their names in the checkpoint.
    """

    type: str
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in topological order, from `inputs` to `outputs` (name of the output -> reference)."""

    inputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    modules: Mapping[str, ModuleSpec] = field(default_factory=dict[str, ModuleSpec])


def references(operands: tuple[Operand, ...]) -> Iterator[str]:
    """Every reference among `operands`, tuples looked into."""
    for operand in operands:
        if isinstance(operand, str):
            yield operand
        elif isinstance(operand, tuple):
            yield from references(operand)  # type: ignore[reportUnknownArgumentType]


def node_of(reference: str) -> str:
    """The name of the node that `reference` points to: "top_k" for "top_k:1"."""
    return reference.split(":", 1)[0]
