"""The cells of recurrent layers: the formulas of one step, the weights in them, and the layers that they make."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from porting.lifting.activations import Activation
from porting.lifting.patterns import Any_, Apply, Match, Nodes, Number, Pattern, Refusal, Weight
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import Node, node_of, references

FLOAT_TYPES = frozenset(TORCH_DTYPES[name] for name in FLOATS)

# -- the formulas -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part(Pattern):
    """One of `count` equal slices of the last axis of `inner`, each `units` wide, or `span` of them; `axes`: the numbers
    of the last axis."""

    inner: Pattern
    index: int
    count: int
    units: int
    span: int = 1
    axes: tuple[int, ...] = (1, -1)

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        if node is None or node.attrs.get("axis") not in self.axes:
            return
        first, last = self.index * self.units, (self.index + self.span) * self.units
        end = (last, None) if last == self.count * self.units else (last,)
        which = operand.partition(":")[2]
        if (
            (node.op == "chunk" and node.attrs["num"] == self.count and which == str(self.index) and self.span == 1)
            or (node.op == "split_sizes" and self._is_split(node.attrs["lengths"]) and which == str(self.index))
            or (node.op == "slice" and node.attrs["step"] == 1 and node.inputs[1] == first and node.inputs[2] in end)
        ):
            yield from self.inner.find(nodes, node.inputs[0], match)

    def _is_split(self, lengths: Sequence[int]) -> bool:
        last = self.count - 1  # -1 means the rest, whose size follows from the weights' shapes
        return self.span == 1 and all(
            length == self.units or (length == -1 and i == last) for i, length in enumerate(lengths[: self.count])
        )


@dataclass(frozen=True)
class Row(Pattern):
    """One of the two rows of a matrix."""

    inner: Pattern
    index: int

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        squeezed = node is not None and node.op == "squeeze" and tuple(node.attrs["axes"]) == (0,)
        if node is not None and squeezed:
            operand = node.inputs[0]
            node = nodes.nodes.get(node_of(operand))
        if node is None or node.op != ("chunk" if squeezed else "unstack"):
            return
        if (node.attrs["axis"], node.attrs["num"], operand.partition(":")[2]) == (0, 2, str(self.index)):
            yield from self.inner.find(nodes, node.inputs[0], match)


def _kept(p: Pattern) -> Pattern:
    """`p`, possibly times the ones of a dropout that is off."""
    return p * 1.0 | p


_X, _H, _C = Any_("x"), Any_("h"), Any_("c")
_KERNEL, _RECURRENT, _BIAS = Weight("kernel"), Weight("recurrent"), Weight("bias")


def _product(x: Pattern, kernel: Pattern, bias: Pattern) -> Pattern:
    """`x @ kernel + bias`, with or without the bias."""
    product = Apply("matmul", x, kernel)
    return product + bias | product


def _part_of_product(x: Pattern, kernel: Pattern, bias: Pattern, index: int, count: int, units: int) -> Pattern:
    """A part of `x @ kernel + bias`: of the result, or, where each input has a dropout of its own, of the weights."""
    parts = Part(kernel, index, count, units), Part(bias, index, count, units, axes=(0, -1))
    return Part(_product(x, kernel, bias), index, count, units) | _product(x, *parts)


def _gate(p: Pattern) -> Pattern:
    return Activation("recurrent_activation", p)


def _new(p: Pattern) -> Pattern:
    return Activation("activation", p)


@cache
def _gru(units: int) -> Pattern:
    """`z h + (1 - z) tanh(x_n + r h_n)`: the state's product is reset, and has its own bias."""
    x = [_part_of_product(_kept(_X), _KERNEL, Row(_BIAS, 0), index, 3, units) for index in range(3)]
    h = [_part_of_product(_kept(_H), _RECURRENT, Row(_BIAS, 1), index, 3, units) for index in range(3)]
    z, r = (_gate(x[index] + h[index]) for index in (0, 1))
    return z * _H + _one_minus(z) * _new(x[2] + r * h[2])


@cache
def _gru_reset_before(units: int) -> Pattern:
    """The state is reset before its matmul."""
    x = [_part_of_product(_kept(_X), _KERNEL, _BIAS, index, 3, units) for index in range(3)]
    h = Apply("matmul", _H, Part(_RECURRENT, 0, 3, units, span=2))
    z, r = (
        _gate(x[i] + (Part(h, i, 2, units) | Apply("matmul", _kept(_H), Part(_RECURRENT, i, 3, units)))) for i in (0, 1)
    )
    n = x[2] + Apply("matmul", r * _kept(_H), Part(_RECURRENT, 2, 3, units))
    return z * _H + _one_minus(z) * _new(n)


def _one_minus(p: Pattern) -> Pattern:
    return Apply("sub", 1.0, p)


def _beside(x: Pattern, h: Pattern, name: str) -> Pattern:
    """`[x, h] @ kernel + bias`, as the cells of TensorFlow 1 have it."""
    joined = Apply("concat", x, h, axis=lambda axis: axis in (1, -1))
    return _product(joined, Weight(name), Weight(f"{name}_bias"))


@cache
def _gru_of_cells(units: int) -> Pattern:
    """The GRUCell of TensorFlow 1: reset and update by one kernel, the candidate by another."""
    gates = _beside(_X, _H, "gates")
    r, z = (_gate(Part(gates, i, 2, units)) | Part(_gate(gates), i, 2, units) for i in (0, 1))
    return z * _H + _one_minus(z) * _new(_beside(_X, r * _H, "candidate"))


def _sum(kernel: Pattern = _KERNEL, recurrent: Pattern = _RECURRENT, bias: Pattern = _BIAS) -> Pattern:
    """`x @ kernel + h @ recurrent + bias`, in any order."""
    x, h = Apply("matmul", _kept(_X), kernel), Apply("matmul", _kept(_H), recurrent)
    return (x + h) + bias | (x + bias) + h | x + h


_SUM = _sum() | _beside(_X, _H, "joint")


@cache
def _rnn(units: int) -> Pattern:
    return _new(_SUM)


def _part_of_sum(index: int, units: int) -> Pattern:
    """One gate of the sum: i, f, g and o in Keras, i, g, f and o in the cells of TensorFlow 1."""
    kernel, recurrent = (Part(weight, index, 4, units) for weight in (_KERNEL, _RECURRENT))
    parted = _sum(kernel, recurrent, Part(_BIAS, index, 4, units, axes=(0, -1)))
    return Part(_sum(), index, 4, units) | parted


@cache
def _lstm_cell(units: int) -> Pattern:
    i, f, g = (_part_of_sum(index, units) for index in range(3))
    return _gate(f) * _C + _gate(i) * _new(g)


def _part_of_joint(index: int, units: int) -> Pattern:
    return Part(_beside(_X, _H, "joint"), index, 4, units)


@cache
def _joint_lstm_cell(units: int) -> Pattern:
    i, g, f = (_part_of_joint(index, units) for index in range(3))
    return _gate(f + Number(name="forget_bias") | f) * _C + _gate(i) * _new(g)


@cache
def _joint_lstm(units: int) -> Pattern:
    return _gate(_part_of_joint(3, units)) * _new(Any_("c_next"))


@cache
def _lstm(units: int) -> Pattern:
    return _gate(_part_of_sum(3, units)) * _new(Any_("c_next"))


@dataclass(frozen=True)
class Kind:
    """A layer: its type, the formulas of its states (the output's first), and the permutation from Keras's to torch's
    gates."""

    layer: str
    formulas: tuple[Any, ...]
    gates: tuple[int, ...]
    biases: int = 1
    reset_after: bool | None = None

    def matches(self, nodes: Nodes, output: Any, units: int, known: Match) -> Iterator[Match]:
        """Every match of a step with this layer, of which `output` is the new `h`, beside what is `known` of it."""
        first, *second = (formula(units) for formula in self.formulas)
        for match in first.find(nodes, output, known):
            yield from second[0].find(nodes, match["c_next"], match) if second else (match,)


KINDS = (
    Kind("GRU", (_gru,), (1, 0, 2), biases=2),
    Kind("GRU", (_gru_reset_before,), (1, 0, 2), reset_after=False),
    Kind("ConcatGRU", (_gru_of_cells,), (0, 1, 2)),
    Kind("LSTM", (_lstm, _lstm_cell), (0, 1, 2, 3)),
    Kind("LSTM", (_joint_lstm, _joint_lstm_cell), (0, 2, 1, 3)),
    Kind("SimpleRNN", (_rnn,), (0,)),
)
# -- the layer ----------------------------------------------------------------------------------------------------------


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
        if tuple(store[name].shape) != shapes[part] or store[name].dtype not in FLOAT_TYPES:
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
