"""View: what a rewrite sees of the graph, and writes to it: nodes (`EditableGraph`), modules, and the store of weights and constants.

A rewrite checks what its pattern found, and then makes the root of the match a call of the layer. For `x @ w + b`:

    view.layer(root, "Linear", {"in_features": 4, "out_features": 2}, x, weights={"weight": w, "bias": b})

The layer is called after its first weight: `dense.weight` and `dense.bias` make `dense`, which owns both from then on
(`porting/lifting/weights.py`); a name that is taken gets a number (`porting/lifting/naming.py`). `root` stays where it is, so that what
used it uses the layer, and the matrix product that nothing uses any more goes with the next `sweep`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porting.conversion.values import Value
from porting.lifting.editable import EditableGraph
from porting.lifting.naming import ModuleNames
from porting.lifting.patterns import Match, Refusal
from porting.lifting.patterns import constant as constant_of
from porting.lifting.weights import Weights
from torch_towers.graph.graph import Graph, ModuleSpec, Node, node_of

FREE = frozenset(
    """add sub mul neg div square sqrt rsqrt maximum minimum tanh sigmoid relu relu6 elu softplus erf erfc exp pow equal less greater
    where cast reshape transpose unsqueeze squeeze broadcast_to zeros_like ones_like size size_add size_sub size_mul sizes_tensor
    select slice as_string squared_difference reduce_sum reduce_mean batch_statistics batch_norm
    space_to_batch reciprocal""".split()  # noqa: SIM905
)
"""Ops that a layer may compute again although something else uses their results too: equal nodes are written once, so that
layers which have nothing to do with each other share such nodes."""


class View(EditableGraph):
    """A graph while it is lifted, with its modules, and its weights and constants in `store`."""

    def __init__(self, graph: Graph, store: Mapping[str, Any], known: Mapping[str, Value]) -> None:
        super().__init__(graph, known)
        self.store: dict[str, Any] = dict(store)
        self.lifted: dict[str, str] = {}  # node -> the layer that it was lifted to
        self.layers: dict[Any, str] = {}  # what a rewrite remembers of the modules it made, to share them
        self.names = ModuleNames(self, self.store)
        self.weights = Weights(self, self.store)

    # -- reading ------------------------------------------------------------------------------------------------------

    def tensor_name(self, ref: str) -> str:
        """The name in the store of a weight or constant."""
        return str(self.nodes[node_of(ref)].attrs["tensor"])

    def tensor(self, ref: str) -> Any:
        """The value of a weight or constant."""
        return self.store[self.tensor_name(ref)]

    def constant(self, ref: Any) -> Any:
        """The value of a constant; None for all else."""
        return constant_of(self, ref)

    def is_layer(self, name: str) -> bool:
        """Whether the node calls a module that a rewrite wrote, rather than a table as it was."""
        return self.nodes[name].op == "module" and self.module_of(self.nodes[name], "LookupTable") is None

    def module_of(self, node: Node | None, kind: str) -> ModuleSpec | None:
        """The module that `node` calls, where it is one of type `kind`."""
        if node is None or node.op != "module":
            return None
        spec = self.modules[str(node.attrs["module"])]
        return spec if spec.type == kind else None

    def used_elsewhere(self, root: Node, match: Match, kept: set[str]) -> str:
        """A sentence where a node inside the match is used outside of it too, and computing it twice is not free."""
        covered = {*match.nodes}
        for name in match.nodes:
            if name == root.name or name in kept or self.nodes[name].op in FREE:
                continue
            if self.is_output(name):
                return f"{name!r} inside it is an output of the graph, so its ops stay"
            outside = next((user for user in self.users.get(name, ()) if not self._is_inside(user, covered)), None)
            if outside is not None:
                return f"{name!r} inside it is also used by {outside!r}, so its ops stay"
        return ""

    def _is_inside(self, name: str, covered: set[str]) -> bool:
        """Whether the node is covered, or asks for the size of what is, on behalf of nodes that are."""
        if name in covered:
            return True
        only = self.nodes[name].op == "size" and not self.is_output(name)
        return only and covered.issuperset(self.users.get(name, ()))

    # -- writing ------------------------------------------------------------------------------------------------------

    def module(self, root: Node, kind: str, name: str, args: Mapping[str, Any], *inputs: Any) -> None:
        """The node `root` calls the module `name` from now on."""
        spec = ModuleSpec(kind, dict(args))
        if self.modules.setdefault(name, spec) != spec:
            raise Refusal(f"the name {name!r} is taken by another module")
        self.rewrite(root, "module", *inputs, module=name)

    def layer(
        self,
        root: Node,
        kind: str,
        args: Mapping[str, Any],
        *inputs: Any,
        weights: Mapping[str, str],
        values: Mapping[str, Any] | None = None,
        called: str = "",
    ) -> None:
        """The node `root` calls a layer of type `kind`, which takes over `weights`: its own names -> weights or constants.

        The layer is called after its first weight, or `called`. Where a weight changes its layout its new value is in `values`; who else
        uses such a weight has to be looked at by the rewrite. Layers of equal weights and arguments are one module.
        """
        key = (kind, tuple(sorted(weights.items())), repr(sorted(args.items())))
        name = self.layers.get(key)
        if name is None:
            own = {part: self.tensor_name(ref) for part, ref in weights.items()}
            name = self.name(called or self.names.of_layer(kind, own, self.weights.owners.values()), own)
            self.weights.take(root, name, weights, values or {})
            self.layers[key] = name
        self.module(root, kind, name, args, *inputs)

    def name(self, wanted: str, own: Mapping[str, str]) -> str:
        """`wanted`, or with a number, as the name of a module; `own`: its parts -> the weights that they are now."""
        return self.names.free(wanted, own)

    def scope(self, root: Node, otherwise: str, *parts: str, suffix: str = "") -> str:
        """A free name for a module without weights of its own: the layer whose scope `root` stands in, or `otherwise`.

        `parts` are what it will name of the store; `suffix` is for a second module of one layer.
        """
        return self.names.of_scope(root, otherwise, parts, suffix)

    def name_in_place_of(self, module: str) -> str:
        """A name for the module that takes the place of another: that one's, where nothing calls it any more."""
        if module not in self.called_modules():
            del self.modules[module]
        return self.name(self.names.wanted.get(module, module), {})
