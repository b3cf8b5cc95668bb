"""Which layer owns which weight: a lifted layer takes its weights over, and they are called after it from then on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from porting.lifting.editable import EditableGraph
from porting.lifting.patterns import SOURCES, Refusal
from torch_towers.graph.graph import Graph, Node, node_of
from torch_towers.program.program import used_names, walk


class Weights:
    """The owners of the weights in `store`. A weight has one owner: who else uses it reads the owner's."""

    def __init__(self, graph: EditableGraph, store: dict[str, Any]) -> None:
        self._graph = graph
        self._store = store
        self.owners: dict[str, str] = {}  # a weight -> the layer that owns it
        self.origins: dict[str, str] = {}  # a weight of a layer -> its name before

    def take(self, root: Node, layer: str, weights: Mapping[str, str], values: Mapping[str, Any]) -> None:
        """`layer`, called at `root`, takes over `weights`: its own names -> references, with new `values` where they change.

        Errors: `Refusal`, before anything is written.
        """
        tensors = {part: str(self._graph.nodes[node_of(ref)].attrs["tensor"]) for part, ref in weights.items()}
        moved = {tensor for part, tensor in tensors.items() if f"{layer}.{part}" != tensor or part in values}
        self._check_free(root, tensors.values(), moved)
        old = {tensor: self._store.pop(tensor) for tensor in set(tensors.values())}
        for part, tensor in tensors.items():
            name, value = f"{layer}.{part}", values.get(part)
            self._store[name] = old[tensor] if value is None else value
            self.owners[name], self.origins[name] = layer, self.origins.get(tensor, tensor)
            node = self._graph.nodes[node_of(weights[part])]
            self._graph.nodes[node.name] = replace(node, attrs={**node.attrs, "tensor": name})
        for tensor in old:
            self.origins.pop(tensor, None)

    def _check_free(self, root: Node, tensors: Iterable[str], moved: set[str]) -> None:
        """Refuses weights that a layer cannot have. `moved`: those that get another name or value."""
        for tensor in tensors:
            if tensor in self.owners:
                raise Refusal(f"its weight {tensor!r} already belongs to the layer {self.owners[tensor]!r}")
        others = (node for node in self._graph.nodes.values() if node.name != root.name)
        for tensor in sorted(moved & {tensor for node in others for tensor in _in_bodies(node)}):
            raise Refusal(f"its weight {tensor!r} is also used inside a loop or a branch")


def used(graph: Graph, store: Mapping[str, Any]) -> dict[str, Any]:
    """What a graph, and the graphs inside it, name of the store."""
    names = used_names(graph)
    return {name: value for name, value in store.items() if name in names}


def _in_bodies(node: Node) -> set[str]:
    """The weights and constants that a loop or branch names inside."""
    bodies = [value for value in node.attrs.values() if isinstance(value, Graph)]
    return {str(inner.attrs["tensor"]) for body in bodies for inner in walk(body) if inner.op in SOURCES}
