"""Narrowing: the part of a graph that some of its outputs depend on."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import Graph, node_of, references


def narrowed(graph: Graph, outputs: AbstractSet[str]) -> Graph:
    """`graph` with these outputs alone, and the nodes and inputs that they and its checks need."""
    kept = {name: ref for name, ref in graph.outputs.items() if name in outputs}
    checks = [node.name for node in graph.nodes if has_effect(node)]
    needed = upstream(graph, [*map(node_of, kept.values()), *checks])
    nodes = tuple(node for node in graph.nodes if node.name in needed)
    return Graph(tuple(spec for spec in graph.inputs if spec.name in needed), nodes, kept, graph.modules)


def upstream(graph: Graph, names: Iterable[str]) -> set[str]:
    """The nodes and inputs that these depend on, themselves included."""
    found = set(names)
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(map(node_of, references(node.inputs)))
    return found
