"""The names of modules: a place in the tree of modules that nobody else's weight lies in.

Weights and modules lie in one tree, as in any `nn.Module`: a module `dense` holds `dense.weight`, so that a module of another layer
cannot be called `dense` while `dense.weight` is not its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from porting.lifting.editable import EditableGraph
from porting.names import identifier, place, spaced
from torch_towers.graph.graph import ModuleSpec, Node
from torch_towers.graph.registry import MODULES
from torch_towers.program.binding import is_layer
from torch_towers.program.program import stored_names

_INNER = re.compile(
    r"(None_Lookup|hash_table_Lookup|string_lookup|integer_lookup|RaggedToTensor|StringSplit|StringNGrams|bincount|l2_normalize"
    r"|moments|batchnorm|clip_by_value|Gelu|LookupTableFindV2|SelectV2)(_\d+)*"
)
"""Scopes that TensorFlow's own functions open inside a layer."""


class ModuleNames:
    """Gives free names to the modules of a graph that is being lifted."""

    def __init__(self, graph: EditableGraph, store: dict[str, Any]) -> None:
        self._graph = graph
        self._store = store
        self.wanted: dict[str, str] = {}  # module -> the name that it should have had

    def free(self, wanted: str, own: Mapping[str, str]) -> str:
        """`wanted`, or with a number: neither a module nor a weight has it, and its parts are nobody else's either.

        `own`: the parts of the module -> the weights that they are now.
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
        """The name that a layer wants: its first weight's scope, or a place in that scope where others of `owned` live there too."""
        scope, _, last = next(iter(own.values())).rpartition(".")
        word = _snake(kind) if last in ("weight", "bias", "w", "b") else last
        if not scope:
            return word
        layers = any(owner.startswith(f"{scope}.") for owner in owned)
        return f"{scope}.{word}" if layers or self._holds_others(scope, own) else scope

    def of_scope(self, root: Node, otherwise: str, parts: Iterable[str], suffix: str = "") -> str:
        """A free name for a module without weights of its own: the layer whose scope `root` stands in, or `otherwise`.

        Scopes inside a layer are left out, and so is the number of the call: `norm_1.truediv` is `norm`.
        """
        scopes = str(root.attrs["module"]).split(".") if root.op == "module" else root.name.split(".")[:-1]
        scopes = layer_scope(scopes)
        if not scopes:
            return self.free(otherwise, dict.fromkeys(parts, ""))
        wanted = ".".join([*scopes[:-1], re.sub(r"(?<=\w)_1$", "", scopes[-1])])
        if wanted in self._graph.modules:
            wanted += suffix
        return self.free(wanted, dict.fromkeys(parts, ""))

    def give_back(self) -> None:
        """Modules without weights get the names that they wanted, where those have become free since."""
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
        """A vocabulary under another name, for all modules that have it."""
        self._store[new] = self._store[old]
        for name, spec in self._graph.modules.items():
            if old in stored_names(name, spec):
                args = {key: new if value == old else value for key, value in spec.args.items()}
                self._graph.modules[name] = ModuleSpec(spec.type, args)

    def _holds_others(self, name: str, own: Mapping[str, str]) -> bool:
        """Whether a weight that is not the layer's own would lie inside of it: a layer holds its own weights only."""
        weights = {str(node.attrs["tensor"]) for node in self._graph.nodes.values() if node.op == "parameter"}
        return any(place(weight).startswith(f"{place(name)}.") for weight in weights - set(own.values()))


def layer_scope(scopes: list[str]) -> list[str]:
    """Scopes without those that TensorFlow's own functions open inside a layer."""
    while scopes and _INNER.fullmatch(scopes[-1]):
        scopes = scopes[:-1]
    return scopes


def _snake(kind: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
