"""The layer that a cell of a recurrent layer makes: its weights, their names, and the call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from porting.lifting.cells import Kind
from porting.lifting.patterns import Match, Nodes, Refusal
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import Node, node_of, references

_FLOAT_TYPES = frozenset(TORCH_DTYPES[name] for name in FLOATS)


@dataclass(frozen=True)
class Layer:
    """The layer of a cell: its kind, the match of its formula, its sizes, its name, and its weights by its own names:
    the names of their variables, and their values in torch's order."""

    kind: Kind
    found: Match
    features: int
    units: int
    names: dict[str, str]
    values: dict[str, Tensor]
    called: str

    @staticmethod
    def of(nodes: Nodes, kind: Kind, found: Match, features: int, units: int) -> Layer:
        """Errors: `Refusal` if a weight does not have the size of the cell's."""
        names, values = _weights(nodes, found, kind, features, units)
        return Layer(kind, found, features, units, names, values, _scope(nodes, names))

    def is_like(self, other: Layer) -> bool:
        """Whether the other one is the same layer, with the same weights."""
        mine, theirs = ((each.kind, each.features, each.units, _activations(each.found)) for each in (self, other))
        return mine == theirs and self.names == other.names

    def check_other_uses(
        self, view: View, roots: Collection[str], results: Collection[str], operands: Sequence[Any]
    ) -> set[str]:
        """The weights change their layout, so no remaining node may use them once the nodes `results` read `operands`,
        and `roots` are calls of the layer; nodes that only prepare those are removed with them. Returns the nodes that
        remain."""
        live: set[str] = set()
        pending = [node_of(ref) for ref in view.outputs.values()]
        pending += [node.name for node in view.nodes.values() if has_effect(node)]
        while pending:
            name = pending.pop()
            node = view.nodes.get(name)
            if node is None or name in live:
                continue
            live.add(name)
            pending += map(node_of, references(tuple(operands) if name in results else node.inputs))
        tensors = set(self.names.values())
        view.weights.check_free(roots, tensors, tensors)
        for name in sorted(live):
            node = view.nodes[name]
            if node.op == "parameter" and node.attrs["tensor"] in tensors:
                raise Refusal(f"its weight {node.attrs['tensor']!r} is also used outside of it")
        return live

    def write(
        self,
        view: View,
        root: Node,
        *operands: Any,
        made: Node | None = None,
        loops: Collection[str] = (),
        **flags: bool,
    ) -> None:
        """Makes the node `root` a call of the layer, which the call `made` has made, if there is one; `loops`: other nodes
        that are going to call it."""
        args = {
            "input_size": self.features,
            "hidden_size": self.units,
            "bias": "bias_ih" in self.names or "gates.bias" in self.names,
            **flags,
            **_activations(self.found),
            **({"reset_after": self.kind.reset_after} if self.kind.reset_after is not None else {}),
        }
        view.lifted[root.name] = self.kind.layer
        if made is not None:
            view.module(root, self.kind.layer, str(made.attrs["module"]), args, *operands)
            view.sweep()
            return
        refs = _outside(view, self.names)
        view.layer(
            root, self.kind.layer, args, *operands, weights=refs, values=self.values, called=self.called, users=loops
        )
        view.sweep()
        for name in refs.values():
            if not view.users.get(name):
                view.nodes.pop(name, None)


def _activations(found: Match) -> dict[str, Any]:
    """The arguments of the activations that are not the usual ones."""
    usual = {"activation": "tanh", "recurrent_activation": "sigmoid", "slope": None, "forget_bias": 0.0}
    return {key: found[key] for key, value in usual.items() if found.get(key) not in (value, None)}


def _weights(
    nodes: Nodes, found: Match, kind: Kind, features: int, units: int
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The layer's weights by its own names: the names of their variables, and their values in torch's order."""
    store, width, joint = nodes.store, units * len(kind.gates), features + units
    shapes = {
        "kernel": (features, width),
        "recurrent": (units, width),
        "bias": (2, width)[2 - kind.biases :],
        "joint": (joint, width),
        "joint_bias": (width,),
        "gates": (joint, 2 * units),
        "gates_bias": (2 * units,),
        "candidate": (joint, units),
        "candidate_bias": (units,),
    }
    own = {part: str(nodes.nodes[node_of(found[part])].attrs["tensor"]) for part in shapes if found.get(part)}
    for part, name in own.items():
        if tuple(store[name].shape) != shapes[part] or store[name].dtype not in _FLOAT_TYPES:
            raise Refusal(f"its weight {name!r} is not of floats {list(shapes[part])}")
    if "gates" in own:
        return _of_cells(store, own)
    if "joint" in own:
        rows = _gates(store[own["joint"]].T, kind.gates)
        names = {"weight_ih": own["joint"], "weight_hh": own["joint"]}
        values = {"weight_ih": rows[:, :features].contiguous(), "weight_hh": rows[:, features:].contiguous()}
        if "joint_bias" in own:
            names["bias_ih"], values["bias_ih"] = own["joint_bias"], _gates(store[own["joint_bias"]], kind.gates)
        return names, values
    names = {"weight_ih": own["kernel"], "weight_hh": own["recurrent"]}
    values = {part: _gates(store[name].T, kind.gates) for part, name in names.items()}
    if "bias" in own:
        rows = store[own["bias"]].reshape(kind.biases, width)
        biases = {part: _gates(row, kind.gates) for part, row in zip(("bias_ih", "bias_hh"), rows, strict=False)}
        names, values = names | dict.fromkeys(biases, own["bias"]), values | biases
    return names, values


def _of_cells(store: Mapping[str, Any], own: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Those of a `ConcatGRU`: two Linear layers."""
    if len({f"{part}_bias" in own for part in ("gates", "candidate")}) != 1:
        raise Refusal("one of its two products has a bias, and the other has none")
    names: dict[str, str] = {}
    values: dict[str, Tensor] = {}
    for part in ("gates", "candidate"):
        names[f"{part}.weight"], values[f"{part}.weight"] = own[part], store[own[part]].T.contiguous()
        if f"{part}_bias" in own:
            names[f"{part}.bias"] = own[f"{part}_bias"]
    return names, values


def _gates(weight: Tensor, order: Sequence[int]) -> Tensor:
    """The rows of the gates in another order."""
    gates = weight.chunk(len(order))
    return torch.cat([gates[index] for index in order])


def _scope(nodes: Nodes, names: Mapping[str, str]) -> str:
    """The layer that the variables are named after: a cell's scope is inside that of its layer, if it is alone there."""
    scope = next(iter(names.values())).rpartition(".")[0]
    if scope.endswith(".gates"):
        return scope.removesuffix(".gates")
    outer = scope.rpartition(".")[0]
    constants = {node.attrs["tensor"] for node in nodes.nodes.values() if node.op == "constant"}
    others = nodes.store.keys() - constants - set(names.values())
    alone = not any(other.startswith(f"{outer}.") for other in others)
    return outer if outer and scope.endswith("_cell") and alone else scope


def _outside(view: View, names: Mapping[str, str]) -> dict[str, str]:
    """An outer node for each variable of the layer."""
    found = {str(node.attrs["tensor"]): name for name, node in view.nodes.items() if node.op == "parameter"}
    for tensor in sorted(set(names.values()) - set(found)):
        found[tensor] = f"{tensor}/outside"
        view.nodes[found[tensor]] = Node(found[tensor], "parameter", (), {"tensor": tensor})
    return {part: found[tensor] for part, tensor in names.items()}
