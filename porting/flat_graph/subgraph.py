"""The subgraph of a flat TF graph between given tensors.

A retrieval index is cut at the query's embedding; the rest is data. A graph that starts with a private op is
cut after it, and the op's results become the tower's inputs.
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
    """Where to cut a graph. `feeds`: references of the tensors that become inputs; `fetches`: references of the
    outputs, by name.

    `without_dropout`: removes dropout first. `openings`: branches and loops to inline then.
    """

    feeds: Mapping[str, TensorSpec] = field(default_factory=dict[str, TensorSpec])
    fetches: Mapping[str, str] = field(default_factory=dict[str, str])
    without_dropout: bool = False
    openings: tuple[Opening, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.feeds or self.fetches or self.without_dropout or self.openings)


def apply(graph: Graph, cut: Cut, functions: Functions) -> Graph:
    """The dependencies of the outputs, up to the fed tensors, with the inputs that are still used.

    Nodes outside the cut are dropped, including assertions and changes that nothing in it reads.
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
    """All nodes that depend on `refs`."""
    start, found = {normal(ref) for ref in refs}, set[str]()
    for node in graph.nodes:
        if any(normal(ref) in start or node_of(ref) in found for ref in node.inputs):
            found.add(node.name)
    return found


def _rename(ref: str, renamed: Mapping[str, str]) -> str:
    return renamed.get(normal(ref), ref)
