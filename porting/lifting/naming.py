"""Names of modules: positions in the module tree without conflicts with weights of others.

Weights and modules form one tree, as in any `nn.Module`: a module `dense` holds `dense.weight`, so another module
cannot be called `dense` unless it owns `dense.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from porting.lifting.editable import EditableGraph
from porting.names import identifier, place, spaced
from torch_towers.graph.graph import Graph, ModuleSpec, Node
from torch_towers.graph.registry import MODULES
from torch_towers.program.binding import is_layer
from torch_towers.program.program import empty_layer, modules, stored_names, walk

_INNER = re.compile(
    r"(None_Lookup|hash_table_Lookup|string_lookup|integer_lookup|RaggedToTensor|StringSplit|StringNGrams|bincount|l2_normalize"
    r"|moments|batchnorm|MaxPool1d|AvgPool1D|max_pool1d|avg_pool1d|Repeat|resize|clip_by_value|Gelu|LookupTableFindV2|SelectV2)(_\d+)*"
)
"""Scopes that TensorFlow's own functions create inside a layer."""


class ModuleNames:
    """Hands out unique module names in a graph that is being lifted."""

    def __init__(self, graph: EditableGraph, store: dict[str, Any]) -> None:
        self._graph = graph
        self._store = store
        self.wanted: dict[str, str] = {}  # module -> its preferred name
        self._scopes = _scopes(graph)

    def free(self, wanted: str, own: Mapping[str, str]) -> str:
        """`wanted`, with a number if needed: no module or weight has this name, and no other owner has its parts.

        `own`: the parts of the module -> their current weights.
        """
        base = ".".join(identifier(part) for part in wanted.split("."))
        places = set(map(place, self._store))
        modules, others = set(map(place, self._graph.modules)), set(map(place, self._store.keys() - set(own.values())))

        def clashes(name: str) -> bool:
            where = {place(f"{name}.{part}"): place(tensor) for part, tensor in own.items()}
            return (
                place(name) in modules | others
                or any(new in places and new != old for new, old in where.items())
                or self._holds_others(name, own)
            )

        name = spaced(base, lambda scope: place(scope) in others, clashes)
        self.wanted[name] = base
        return name

    def of_layer(self, kind: str, own: Mapping[str, str], owned: Iterable[str]) -> str:
        """The preferred name of a layer: its first weight's scope, or a name inside that scope if it also has other
        weights of `owned`."""
        scope, _, last = next(iter(own.values())).rpartition(".")
        word = _snake(kind) if last in ("weight", "bias", "w", "b") else last
        if not scope:
            return word
        layers = any(owner.startswith(f"{scope}.") for owner in owned)
        return f"{scope}.{word}" if layers or self._holds_others(scope, own) else scope

    def of_scope(self, root: Node, otherwise: str, parts: Iterable[str], suffix: str = "") -> str:
        """A free name for a module without weights: the layer scope of `root`, or `otherwise`.

        Scopes inside a layer are dropped, and so is the number of the call. A scope that holds weights is more than
        this layer, which gets the name `otherwise` in it.
        """
        scopes = str(root.attrs["module"]).split(".") if root.op == "module" else root.name.split(".")[:-1]
        scopes = layer_scope(scopes)
        if not scopes:
            return self.free(otherwise, dict.fromkeys(parts, ""))
        wanted = self._without_call(".".join(scopes))
        if not tuple(parts) and (self._holds_others(wanted, {}) or self._holds_layers(wanted)):
            wanted = f"{wanted}.{otherwise}"
        if wanted in self._graph.modules:
            wanted += suffix
        return self.free(wanted, dict.fromkeys(parts, ""))

    def _without_call(self, scope: str) -> str:
        """The layer whose call a scope is.

        Keras 3 traces each layer twice, and its graph has the second calls: `norm_1` of the layer `norm`, and
        `norm_1_2` of the layer `norm_1`. In a graph that has a scope `norm` too, as tf_keras writes it, `norm_1` is a
        layer.
        """
        if scope.endswith("_1_2") and scope[:-2] in self._scopes:
            return scope[:-2]
        return scope[:-2] if re.search(r"\w_1$", scope) and scope[:-2] not in self._scopes else scope

    def give_back(self) -> None:
        """Renames modules without weights to their preferred names, if those have become free."""
        called = self._graph.called_modules()
        taken = called | set(self._store)
        for name in sorted(called):
            base, spec = self.wanted.get(name, name), self._graph.modules[name]
            if base == name or base in taken or is_layer(MODULES[spec.type]):
                continue
            taken.add(base)
            self._graph.modules[base] = self._graph.modules.pop(name)
            for node in list(self._graph.nodes.values()):
                if node.op == "module" and node.attrs["module"] == name:
                    self._graph.nodes[node.name] = replace(node, attrs={"module": base})
            for tensor in stored_names(name, spec):
                if tensor.startswith(f"{name}.") and base + tensor[len(name) :] not in self._store:
                    self._rename_argument(tensor, base + tensor[len(name) :])

    def _rename_argument(self, old: str, new: str) -> None:
        """Renames a vocabulary in all modules that use it."""
        self._store[new] = self._store[old]
        for name, spec in self._graph.modules.items():
            if old in stored_names(name, spec):
                args = {key: new if value == old else value for key, value in spec.args.items()}
                self._graph.modules[name] = ModuleSpec(spec.type, args)

    def _holds_others(self, name: str, own: Mapping[str, str]) -> bool:
        """Whether a weight that is not the layer's own would be inside of it."""
        weights = {str(node.attrs["tensor"]) for node in self._graph.nodes.values() if node.op == "parameter"}
        return any(place(weight).startswith(f"{place(name)}.") for weight in weights - set(own.values()))

    def _holds_layers(self, name: str) -> bool:
        """Whether a layer with weights would be inside of it."""
        inside = [spec for other, spec in self._graph.modules.items() if other.startswith(f"{name}.")]
        return any(is_layer(MODULES[spec.type]) for spec in inside)


def with_constants_apart(graph: Graph, store: Mapping[str, Any]) -> tuple[Graph, dict[str, Any]]:
    """The graph and its store, with other names for constants that lie in a layer and are called as an attribute of it is:
    `gru.cell.epsilon`, where a `GRU` has a `cell`, is `gru.cell_.epsilon`."""
    layers = {
        name: empty_layer(MODULES[spec.type], spec.args)
        for name, spec in modules(graph).items()
        if is_layer(MODULES[spec.type])
    }
    tensors = {str(node.attrs["tensor"]) for node in walk(graph) if node.op == "constant"}
    new = {tensor: apart for tensor in tensors if (apart := _apart(tensor, layers)) != tensor}
    if not new:
        return graph, dict(store)
    return _with_tensors(graph, new), {new.get(name, name): value for name, value in store.items()}


def _apart(tensor: str, layers: Mapping[str, nn.Module]) -> str:
    parts = tensor.split(".")
    for end in range(1, len(parts)):
        layer = layers.get(".".join(parts[:end]))
        if layer is not None and hasattr(layer, parts[end]) and parts[end] not in dict(layer.named_children()):
            parts[end] += "_"
    return ".".join(parts)


def _with_tensors(graph: Graph, new: Mapping[str, str]) -> Graph:
    """The graph, and those in it, with other names of tensors."""
    nodes = [
        replace(
            node,
            attrs={
                key: _with_tensors(value, new) if isinstance(value, Graph) else value
                for key, value in node.attrs.items()
            },
        )
        if node.op != "constant"
        else replace(node, attrs={**node.attrs, "tensor": new.get(str(node.attrs["tensor"]), node.attrs["tensor"])})
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def _scopes(graph: EditableGraph) -> set[str]:
    """All scopes of nodes that compute; weights have the names of layers, not of their calls."""
    found: set[str] = set()
    for node in graph.nodes.values():
        scope = node.name.rpartition(".")[0]
        while scope and scope not in found and node.op not in ("parameter", "constant"):
            found.add(scope)
            scope = scope.rpartition(".")[0]
    return found


def layer_scope(scopes: list[str]) -> list[str]:
    """Scopes without those that TensorFlow's own functions create inside a layer."""
    while scopes and _INNER.fullmatch(scopes[-1]):
        scopes = scopes[:-1]
    return scopes


def _snake(kind: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
