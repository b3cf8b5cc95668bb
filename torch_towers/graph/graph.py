"""Graph, Node and TensorSpec: the computation of a tower as plain data.

One class for two vocabularies: before `porting.conversion.convert` the ops are TensorFlow's ("GatherV2"), afterwards
they are entries of `torch_towers.ops` ("gather") and modules of `torch_towers.layers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Size = int | str | None  # 64, a named dynamic size such as "batch", or unknown
Operand = Any  # a reference ("dense_1", "top_k:1"), a literal (int, float, bool, None), or a tuple of operands


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, dtype ("float32", "string", ...) and shape of a tensor; `shape` is None if the rank is unknown."""

    name: str
    dtype: str
    shape: tuple[Size, ...] | None


BATCH = "batch"
"""The name of the batch dimension. An input whose leading size has another name is not per-row."""


def rows_of(spec: TensorSpec) -> str:
    """The name of an input's leading dimension: inputs with the same name have equally many rows. Empty if there is
    none."""
    size = spec.shape[0] if spec.shape else None
    return size if isinstance(size, str) else ""


def is_batched(spec: TensorSpec) -> bool:
    """True for an input or output with one element per row of the batch."""
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
    """A module of the closed table `torch_towers.layers`: its type and constructor arguments.

    Arguments that are tensors or vocabularies are names in the checkpoint.
    """

    type: str
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in topological order, from `inputs` to `outputs` (output name -> reference)."""

    inputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    modules: Mapping[str, ModuleSpec] = field(default_factory=dict[str, ModuleSpec])


def references(operands: tuple[Operand, ...]) -> Iterator[str]:
    """Every reference among `operands`, including those inside tuples."""
    for operand in operands:
        if isinstance(operand, str):
            yield operand
        elif isinstance(operand, tuple):
            yield from references(operand)  # type: ignore[reportUnknownArgumentType]


def bodies(node: Node) -> list[Graph]:
    """The graphs in a node's attributes: the bodies of a loop or branch."""
    return [value for value in node.attrs.values() if isinstance(value, Graph)]


def node_of(reference: str) -> str:
    """The name of the node that `reference` names: "top_k" for "top_k:1"."""
    return reference.split(":", 1)[0]
