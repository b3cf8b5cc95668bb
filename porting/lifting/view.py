"""What a rewrite reads and edits: nodes (`EditableGraph`), modules, and the store of weights and constants.

A rewrite checks the match of its pattern, and then makes its root a call of the layer. For `x @ w + b`:

    view.layer(root, "Linear", {"in_features": 4, "out_features": 2}, x, weights={"weight": w, "bias": b})

The layer is named after its first weight: `dense.weight` and `dense.bias` make `dense`, which then owns both
(`porting/lifting/weights.py`); a name that is taken gets a number (`porting/lifting/naming.py`). `root` keeps its
position, so its users now use the layer, and the next `sweep` removes the dead matmul.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from porting.conversion.values import Value
from porting.lifting.editable import EditableGraph
from porting.lifting.naming import ModuleNames
from porting.lifting.patterns import Match, Refusal
from porting.lifting.patterns import constant as constant_of
from porting.lifting.weights import Weights
from torch_towers.graph.graph import Graph, ModuleSpec, Node, node_of

FREE = frozenset(
    """add sub mul neg div div_no_nan square sqrt rsqrt maximum minimum tanh sigmoid relu relu6 elu softplus erf erfc exp pow equal less greater
    where cast reshape transpose unsqueeze squeeze broadcast_to zeros_like ones_like size size_add size_sub size_mul sizes_tensor
    select slice as_string squared_difference reduce_sum reduce_mean batch_statistics batch_norm
    space_to_batch reciprocal""".split()  # noqa: SIM905
)
"""Ops that a layer may recompute although their results have other users: equal nodes are deduplicated, so
unrelated layers share them."""


class View(EditableGraph):
    """A graph under lifting, with its modules, and its weights and constants in `store`."""

    def __init__(self, graph: Graph, store: Mapping[str, Any], known: Mapping[str, Value]) -> None:
        super().__init__(graph, known)
        self.store: dict[str, Any] = dict(store)
        self.lifted: dict[str, str] = {}  # node -> its layer type
        self.layers: dict[Any, str] = {}  # keys of modules that rewrites created, to share them
        self.inside: set[str] = set()  # nodes inside of what a rewrite decides as a whole, not to be tried alone
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
        """The value of a constant, else None."""
        return constant_of(self, ref)

    def is_layer(self, name: str) -> bool:
        """Whether the node calls a module written by a rewrite, not an original table."""
        return self.nodes[name].op == "module" and self.module_of(self.nodes[name], "LookupTable") is None

    def module_of(self, node: Node | None, kind: str) -> ModuleSpec | None:
        """The module that `node` calls, if its type is `kind`."""
        if node is None or node.op != "module":
            return None
        spec = self.modules[str(node.attrs["module"])]
        return spec if spec.type == kind else None

    def used_elsewhere(self, root: Node, match: Match, kept: set[str]) -> str:
        """The reason if a node inside the match also has outer users, and recomputing it is not free."""
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
        """Whether the node is covered, or computes a size of covered nodes for covered nodes."""
        if name in covered:
            return True
        only = self.nodes[name].op == "size" and not self.is_output(name)
        return only and covered.issuperset(self.users.get(name, ()))

    # -- writing ------------------------------------------------------------------------------------------------------

    def module(self, root: Node, kind: str, name: str, args: Mapping[str, Any], *inputs: Any) -> None:
        """Makes the node `root` a call of the module `name`."""
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
        users: Collection[str] = (),
    ) -> None:
        """Makes the node `root` a call of a layer of type `kind`, which takes over `weights`: its own names -> weights
        or constants.

        The layer is named after its first weight, or `called`. `users`: other nodes that are going to call it. If a weight changes its layout, `values` has its new
        value; the rewrite must check the weight's other users. Layers with equal weights and arguments are one module.
        """
        key = (kind, tuple(sorted(weights.items())), repr(sorted(args.items())))
        name = self.layers.get(key)
        if name is None:
            own = {part: self.tensor_name(ref) for part, ref in weights.items()}
            name = self.name(called or self.names.of_layer(kind, own, self.weights.owners.values()), own)
            self.weights.take([root.name, *users], name, weights, values or {})
            self.layers[key] = name
        self.module(root, kind, name, args, *inputs)

    def name(self, wanted: str, own: Mapping[str, str]) -> str:
        """`wanted`, with a number if needed, as a module name; `own`: its parts -> their current weights."""
        return self.names.free(wanted, own)

    def scope(self, root: Node, otherwise: str, *parts: str, suffix: str = "") -> str:
        """A free name for a module without weights: the layer scope of `root`, or `otherwise`.

        `parts` are the names it will use in the store; `suffix` is for a second module of one layer.
        """
        return self.names.of_scope(root, otherwise, parts, suffix)

    def name_in_place_of(self, module: str) -> str:
        """A name for the module that replaces another: that one's name, if nothing calls it any more."""
        if module not in self.called_modules():
            del self.modules[module]
        return self.name(self.names.wanted.get(module, module), {})
