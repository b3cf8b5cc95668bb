"""Lifts formulas in a graph of ops to layers: Linear, Embedding, LayerNorm, StringLookup, ...

Each file in `porting/rewrites/` has the rewrites of one layer: a pattern, and a function that checks the match and
writes the module, or refuses with a reason. Ops that are not lifted still run, with the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from porting.conversion.values import Value
from porting.lifting.editable import renamed, renamed_ref
from porting.lifting.frozen import with_weights
from porting.lifting.naming import layer_scope, with_constants_apart
from porting.lifting.patterns import SOURCES, Match, Refusal
from porting.lifting.registry import REWRITES, Rewrite
from porting.lifting.view import View
from porting.lifting.weights import used
from torch_towers.graph.graph import Graph, Node, node_of


@dataclass(frozen=True, slots=True)
class Lifted:
    """The lifted graph, its store, and the report.

    `origins`: a layer's weight -> its previous name; `names`: a node's previous name -> its new name, if it changed; `frozen`:
    previous names of weights that were constants.
    """

    graph: Graph
    store: dict[str, Any]
    known: dict[str, Value]
    counts: Counter[str] = field(default_factory=Counter[str])
    remaining: Counter[str] = field(default_factory=Counter[str])
    refusals: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict[str, str])
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    frozen: frozenset[str] = frozenset()

    def summary(self) -> str:
        """One line: `lifted 3 Linear, 2 Embedding; 7 ops remain`."""
        layers = ", ".join(f"{count} {layer}" for layer, count in sorted(self.counts.items()))
        left = sum(self.remaining.values())
        return f"lifted {layers or 'nothing'}; {left} op{'s' if left != 1 else ''} remain{'' if left != 1 else 's'}"


def lift(graph: Graph, store: Mapping[str, Any], known: Mapping[str, Value]) -> Lifted:
    """Lifts every certain layer of `graph`, with the rewrites in `REWRITES`.

    `store` and `known` are not modified; the result has new ones.
    """
    graph, frozen = with_weights(graph, store)
    view = View(graph, store, known)
    refusals: dict[str, str] = {}
    for item in [item for items in REWRITES.values() for item in items]:
        roots = item.pattern.roots()
        names = list(view.nodes)  # the largest formula first: `x @ w + b` before its part `x @ w`
        for name in names if item.forward else reversed(names):
            node = view.nodes.get(name)
            if node is not None and (not roots or node.op in roots):
                _try(view, item, node, refusals)
    view.names.give_back()
    remaining = Counter(node.op for node in view.nodes.values() if node.op not in {*SOURCES, "module"})
    counts = _counts(view)
    still = [name for name in refusals if name in view.nodes and not _was_lifted(view, name, refusals[name])]
    lifted, names = _named(view.graph())
    lifted, found = with_constants_apart(lifted, view.store)
    values = _known(lifted, view.known, names)
    refused = tuple(refusals[name] for name in still)
    return Lifted(lifted, used(lifted, found), values, counts, remaining, refused, view.weights.origins, names, frozen)


def _try(view: View, item: Rewrite, node: Node, refusals: dict[str, str]) -> None:
    if node.op in ("parameter", "constant"):
        return
    problem = ""
    for match in item.pattern.find(view, node.name, Match()):
        shared = view.used_elsewhere(node, match, {node_of(match[name]) for name in item.keeps if match.get(name)})
        if shared:
            problem = problem or shared
            continue
        try:
            layer = item.apply(view, node, match) or item.layer
        except Refusal as refusal:
            problem = problem or str(refusal)
            continue
        view.sweep()
        if layer:
            view.lifted[node.name] = layer
        return
    if problem and item.layer:
        refusals.setdefault(node.name, f"{item.layer}: {node.op} {node.name!r}: {problem}")


def _was_lifted(view: View, name: str, refusal: str) -> bool:
    """Whether the node has become a layer after all, or part of one."""
    return view.is_layer(name) or refusal.startswith(f"{view.lifted.get(name)}: ")


def _counts(view: View) -> Counter[str]:
    """The number of layers by type; a module that is called twice counts once."""
    found = {
        str(view.nodes[name].attrs["module"]) if view.is_layer(name) else name: layer
        for name, layer in view.lifted.items()
        if name in view.nodes
    }
    return Counter(found.values())


def _named(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """Renames the nodes that call a module after it, or, for further calls, after the scope of the call.

    Also returns the new names by old name.
    """
    taken = {node.name for node in graph.nodes} | {spec.name for spec in graph.inputs}
    new: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "module":
            continue
        for wanted in (str(node.attrs["module"]), ".".join(layer_scope(node.name.split(".")[:-1]))):
            if wanted and node.name not in new and wanted not in taken:
                taken.add(wanted)
                new[node.name] = wanted
    nodes = [
        Node(new.get(node.name, node.name), node.op, renamed(node.inputs, new), node.attrs) for node in graph.nodes
    ]
    outputs = {name: renamed_ref(ref, new) for name, ref in graph.outputs.items()}
    return Graph(graph.inputs, tuple(nodes), outputs, graph.modules), new


def _known(graph: Graph, known: Mapping[str, Value], new: Mapping[str, str]) -> dict[str, Value]:
    """The specs of the remaining values, under their new names."""
    left = {node.name for node in graph.nodes} | {spec.name for spec in graph.inputs}
    moved = {renamed_ref(ref, new): replace(value, ref=renamed_ref(ref, new)) for ref, value in known.items()}
    return {ref: value for ref, value in moved.items() if node_of(ref) in left}
