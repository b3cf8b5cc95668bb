"""Ownership of weights: a lifted layer takes over its weights, which are then named after it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from porting.lifting.editable import EditableGraph
from porting.lifting.patterns import SOURCES, Refusal
from torch_towers.graph.dtypes import DTYPE_NAMES
from torch_towers.graph.graph import Graph, Node, node_of
from torch_towers.graph.names import numbered
from torch_towers.program.program import used_names, walk


class Weights:
    """The owners of the weights in `store`. A weight has one owner; other users read the owner's."""

    def __init__(self, graph: EditableGraph, store: dict[str, Any]) -> None:
        self._graph = graph
        self._store = store
        self.owners: dict[str, str] = {}  # a weight -> its layer
        self.origins: dict[str, str] = {}  # a layer's weight -> its previous name

    def take(self, users: Collection[str], layer: str, weights: Mapping[str, str], values: Mapping[str, Any]) -> None:
        """`layer`, called at the nodes `users`, takes over `weights`: its own names -> references, with new `values` if
        they change.

        Errors: `Refusal`, before anything is written.
        """
        tensors = {part: str(self._graph.nodes[node_of(ref)].attrs["tensor"]) for part, ref in weights.items()}
        moved = {tensor for part, tensor in tensors.items() if f"{layer}.{part}" != tensor or part in values}
        self.check_free(users, tensors.values(), moved)
        old = {tensor: self._store.pop(tensor) for tensor in set(tensors.values())}
        for part, tensor in tensors.items():
            name, value = f"{layer}.{part}", values.get(part)
            self._store[name] = old[tensor] if value is None else value
            self.owners[name], self.origins[name] = layer, self.origins.get(tensor, tensor)
            node = self._graph.nodes[node_of(weights[part])]
            self._graph.nodes[node.name] = replace(node, attrs={**node.attrs, "tensor": name})
        for tensor in old:
            self.origins.pop(tensor, None)

    def join(self, root: Node, name: str, parts: Sequence[str], value: Tensor) -> str:
        """The reference of a new weight `name`, if that is free, of `value`, which stands for `parts`: references of the
        weights that `root` no longer reads.

        Errors: `Refusal`, before anything is written.
        """
        tensors = [str(self._graph.nodes[node_of(ref)].attrs["tensor"]) for ref in parts]
        self.check_free([root.name], tensors, set(tensors))
        name = numbered(name, lambda taken: taken in self._store)
        self._store[name], self.origins[name] = value, self.origins.get(tensors[0], tensors[0])
        spec = self._graph.dtype(parts[0]), tuple(value.shape)
        return self._graph.before(root, "parameter", known=spec, tensor=name)

    def constant(self, root: Node, name: str, value: Tensor) -> str:
        """The reference of a new constant `name`, if that is free, which `root` can read."""
        name = numbered(name, lambda taken: taken in self._store)
        self._store[name] = value
        spec = DTYPE_NAMES[value.dtype], tuple(value.shape)
        return self._graph.before(root, "constant", known=spec, tensor=name)

    def check_free(self, users: Collection[str], tensors: Iterable[str], moved: set[str]) -> None:
        """Refuses weights that a layer, called at the nodes `users`, cannot own. `moved`: those that get another name or
        value."""
        for tensor in tensors:
            if tensor in self.owners:
                raise Refusal(f"its weight {tensor!r} already belongs to the layer {self.owners[tensor]!r}")
        others = (node for node in self._graph.nodes.values() if node.name not in users)
        for tensor in sorted(moved & {tensor for node in others for tensor in in_bodies(node)}):
            raise Refusal(f"its weight {tensor!r} is also used inside a loop or a branch")


def used(graph: Graph, store: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the store that a graph and its nested graphs use."""
    names = used_names(graph)
    return {name: value for name, value in store.items() if name in names}


def in_bodies(node: Node) -> set[str]:
    """The weights and constants used inside a loop or branch."""
    bodies = [value for value in node.attrs.values() if isinstance(value, Graph)]
    return {str(inner.attrs["tensor"]) for body in bodies for inner in walk(body) if inner.op in SOURCES}
