"""The layer that a cell of a recurrent layer makes: its weights, their names, and the call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from porting.lifting.cells import FUSED, INPUTS, STATES, Kind
from porting.lifting.patterns import Match, Nodes, Refusal
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import Node, node_of, references
from torch_towers.ops.conv import torch_kernel

_FLOAT_TYPES = frozenset(TORCH_DTYPES[name] for name in FLOATS)


@dataclass(frozen=True)
class Layer:
    """The layer of a cell: its kind, the match of its formula, its sizes, its name, and its weights by its own names:
    the names of their variables, and their values in torch's order. `convolution`: its other arguments, if its products are
    convolutions."""

    kind: Kind
    found: Match
    features: int
    units: int
    names: dict[str, str]
    values: dict[str, Tensor]
    called: str
    convolution: dict[str, Any]

    @staticmethod
    def of(nodes: Nodes, kind: Kind, found: Match, features: int, units: int) -> Layer:
        """Errors: `Refusal` if a weight does not have the size of the cell's."""
        if kind.layer == "ConvLSTM":
            convolution, (names, values) = _convolution(nodes, found), _kernels(nodes, found, kind, features, units)
        else:
            convolution, (names, values) = {}, _weights(nodes, found, kind, features, units)
        return Layer(kind, found, features, units, names, values, _scope(nodes, names), convolution)

    def is_like(self, other: Layer) -> bool:
        """Whether the other one is the same layer, with the same weights."""
        mine, theirs = (
            (each.kind, each.features, each.units, _activations(each.found), each.convolution) for each in (self, other)
        )
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
            **self.convolution,
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
    own = _tensors(nodes, found, shapes)
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


def _tensors(nodes: Nodes, found: Match, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The weights that a match has found, by their part of the formula. Errors: `Refusal` if one has another shape."""
    own = {part: str(nodes.nodes[node_of(found[part])].attrs["tensor"]) for part in shapes if found.get(part)}
    for part, name in own.items():
        if tuple(nodes.store[name].shape) != shapes[part] or nodes.store[name].dtype not in _FLOAT_TYPES:
            raise Refusal(f"its weight {name!r} is not of floats {list(shapes[part])}")
    return own


def _convolution(nodes: Nodes, found: Match) -> dict[str, Any]:
    """The arguments of a layer whose products are convolutions; sequences are convolved as images of one row."""
    rank = nodes.store[_parameter(nodes, found["kernel"])].ndim - 2
    taken = [_arguments(nodes.nodes[found[f"{INPUTS}{gate}"]], rank) for gate in range(4)]
    kept = [_arguments(nodes.nodes[found[f"{STATES}{gate}"]], rank) for gate in range(4)]
    once = {"stride": (1,) * rank, "padding": "SAME"}
    if any(each != taken[0] for each in taken) or any(each != once for each in kept):
        raise Refusal("its gates are convolved differently, or its state with strides")
    kernel = tuple(nodes.store[_parameter(nodes, found["kernel"])].shape[:rank])
    fused = {"no_nan": True} if found.get(FUSED) else {}
    if fused and found["activation"] != "relu":
        raise Refusal("what it adds is a relu, and what it gives is not")
    return {"kernel_size": kernel, **taken[0], **fused}


def _arguments(node: Node, rank: int) -> dict[str, Any]:
    attrs = node.attrs
    if not attrs["channels_last"] or attrs.get("depthwise") or set(attrs["dilations"]) != {1}:
        raise Refusal("its convolutions do not have the channels last, are depthwise, or dilated")
    padding = attrs["padding"] if isinstance(attrs["padding"], str) else tuple(attrs["padding"])[-rank:]
    return {"stride": tuple(attrs["strides"])[-rank:], "padding": padding}


def _kernels(
    nodes: Nodes, found: Match, kind: Kind, features: int, units: int
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The same of a layer whose products are convolutions."""
    space, width = tuple(nodes.store[_parameter(nodes, found["kernel"])].shape[:-2]), units * len(kind.gates)
    shapes = {"kernel": (*space, features, width), "recurrent": (*space, units, width), "bias": (width,)}
    own = _tensors(nodes, found, shapes)
    names = {"weight_ih": own["kernel"], "weight_hh": own["recurrent"]}
    values = {part: torch_kernel(nodes.store[name], False).contiguous() for part, name in names.items()}
    if "bias" in own:
        names["bias_ih"], values["bias_ih"] = own["bias"], nodes.store[own["bias"]]
    return names, values


def _parameter(nodes: Nodes, ref: str) -> str:
    return str(nodes.nodes[node_of(ref)].attrs["tensor"])


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
