"""Replaces each run of repeated blocks of a graph by one node: a loop over blocks of one class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of, references
from torch_towers.program.blocks import Repeat, repeats
from torch_towers.source.simplify import ordered

BLOCKS = "blocks"
"""The op of a node that represents a loop over blocks: `Node(name, BLOCKS, (first, *others), {"blocks":
Blocks(...)})`."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """`times` equal blocks. `graph` is the first: its first input is the carried value, the others are shared by all
    blocks.

    `slots` maps each weight and layer of `graph` to its names in all blocks: the same ones if the blocks are `shared`,
    which is one block that runs several times.
    """

    graph: Graph
    times: int
    slots: Mapping[str, tuple[str, ...]]

    @property
    def shared(self) -> bool:
        """Whether all blocks have the same layers."""
        return all(len(set(names)) == 1 for names in self.slots.values())


def with_blocks(graph: Graph, tensors: Mapping[str, Tensor]) -> Graph:
    """The graph with one node for each run of equal blocks that pass on a single value."""
    for repeat in repeats(graph):
        node = _loop(graph, repeat, tensors)
        if node is not None:
            gone = {name for block in repeat.blocks for name in block}
            graph = replace(graph, nodes=(*(one for one in graph.nodes if one.name not in gone), node))
    return ordered(graph)


def _loop(graph: Graph, repeat: Repeat, tensors: Mapping[str, Tensor]) -> Node | None:
    """The loop node, named after the last block's result; None if a loop cannot express the blocks."""
    if len(repeat.carries) != 1:
        return None
    ((given, handed),) = repeat.carries
    nodes = {node.name: node for node in graph.nodes}
    names = [[*block, *_sources(block, nodes)] for block in repeat.blocks]
    shared = {name for block in names[1:] for name in block if name in names[0]}
    if len({len(block) for block in names}) > 1 or ":" in handed or shared:
        return None
    last = repeat.blocks[-1][repeat.blocks[0].index(handed)]
    if _read_outside(graph, {name for block in repeat.blocks for name in block}) - {last}:
        return None
    slots: dict[str, tuple[str, ...]] = {}
    for same in zip(*names, strict=True):
        said = [nodes[name].attrs.get("module", nodes[name].attrs.get("tensor")) for name in same]
        if said[0] is None:
            continue
        if nodes[same[0]].op == "module":
            slots[str(said[0])] = tuple(map(str, said))
        elif not _alike(*(nodes[name] for name in same), tensors=tensors):
            return None
        else:
            slots[str(said[0])] = tuple(map(str, said))
    if {len(set(slot)) for slot in slots.values()} not in ({1}, {len(repeat.blocks)}):
        return None  # some layers are shared by some blocks
    outside = (given, *repeat.shared)
    specs = {spec.name: spec for spec in graph.inputs}
    inner = Graph(
        tuple(specs.get(ref, TensorSpec(ref, "", None)) for ref in outside),
        tuple(node for node in _in_order(graph, repeat.blocks[0], names[0])),
        {"x": handed},
        {name: graph.modules[name] for name in slots if name in graph.modules},
    )
    held = tuple(dict.fromkeys(name for slot in slots.values() for name in slot if name in graph.modules))
    return Node(last, BLOCKS, outside, {"blocks": Blocks(inner, len(repeat.blocks), slots), "holds": held})


def _sources(block: tuple[str, ...], nodes: Mapping[str, Node]) -> list[str]:
    """The weights and constants that a block reads, in that order."""
    found = (node_of(ref) for name in block for ref in references(nodes[name].inputs))
    return list(dict.fromkeys(name for name in found if name in nodes and nodes[name].op in ("parameter", "constant")))


def _in_order(graph: Graph, block: tuple[str, ...], names: list[str]) -> list[Node]:
    """The nodes of a block in topological order, weights first."""
    nodes = {node.name: node for node in graph.nodes}
    return [nodes[name] for name in (*names[len(block) :], *block)]


def _read_outside(graph: Graph, inside: set[str]) -> set[str]:
    """The nodes among `inside` that other nodes, or the outputs, read."""
    read = {node_of(ref) for node in graph.nodes if node.name not in inside for ref in references(node.inputs)}
    return (read | {node_of(ref) for ref in graph.outputs.values()}) & inside


def _alike(*nodes: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether weights agree in shape and dtype, and constants in value."""
    first, *others = (tensors[str(node.attrs["tensor"])] for node in nodes)
    if any(node.op != nodes[0].op for node in nodes):
        return False
    if any(other.shape != first.shape or other.dtype != first.dtype for other in others):
        return False
    return nodes[0].op == "parameter" or all(torch.equal(first, other) for other in others)
