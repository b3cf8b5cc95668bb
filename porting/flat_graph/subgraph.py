"""Subgraph: the part of a flat TF graph between some of its tensors and others.

A retrieval index is cut at the query's embedding, and what follows is data. A graph that begins with an op that nobody has is
cut behind it, and its results are the tower's inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from porting.flat_graph import dropout, effects
from porting.flat_graph.effects import Functions, normal, upstream
from porting.flat_graph.opened import Opening, opened
from torch_towers.graph.graph import Graph, TensorSpec, node_of


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a graph is cut. `feeds`: the tensors that become inputs, by reference; `fetches`: the outputs' references, by name.

    `without_dropout`: dropout that was left on is taken out first. `openings`: branches and loops that are spelled out then.
    """

    feeds: Mapping[str, TensorSpec] = field(default_factory=dict[str, TensorSpec])
    fetches: Mapping[str, str] = field(default_factory=dict[str, str])
    without_dropout: bool = False
    openings: tuple[Opening, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.feeds or self.fetches or self.without_dropout or self.openings)


def apply(graph: Graph, cut: Cut, functions: Functions) -> Graph:
    """The nodes that the outputs need, back to the tensors that are fed; of the inputs those that are still used.

    What stands outside of the cut goes, with its assertions, and with what it changes that nothing here reads.
    """
    if not cut:
        return graph
    graph = dropout.off(graph) if cut.without_dropout else graph
    graph = opened(graph, cut.openings, functions)
    renamed = {normal(ref): spec.name for ref, spec in cut.feeds.items()}
    fetches = dict(cut.fetches) or dict(graph.outputs)
    nodes = {node.name: node for node in graph.nodes}
    needed = upstream(fetches.values(), nodes, renamed)
    outside = _downstream(cut.fetches.values(), graph) | upstream(cut.feeds, nodes, {})
    outside -= needed
    for node in graph.nodes:
        if node.name not in needed and effects.asserts(node, functions):
            around = upstream([node.name], nodes, renamed)
            if outside.isdisjoint(around):
                needed |= around
    for name in effects.that_change(needed, graph, functions):
        needed |= upstream([name], nodes, renamed)
    kept = [
        replace(n, inputs=tuple(_rename(ref, renamed) for ref in n.inputs)) for n in graph.nodes if n.name in needed
    ]
    outputs = {name: _rename(ref, renamed) for name, ref in fetches.items()}
    used = {node_of(ref) for node in kept for ref in node.inputs} | {node_of(ref) for ref in outputs.values()}
    return Graph((*(spec for spec in graph.inputs if spec.name in used), *cut.feeds.values()), tuple(kept), outputs)


def _downstream(refs: Iterable[str], graph: Graph) -> set[str]:
    """The nodes that use `refs`, or what is made of them."""
    start, found = {normal(ref) for ref in refs}, set[str]()
    for node in graph.nodes:
        if any(normal(ref) in start or node_of(ref) in found for ref in node.inputs):
            found.add(node.name)
    return found


def _rename(ref: str, renamed: Mapping[str, str]) -> str:
    return renamed.get(normal(ref), ref)
