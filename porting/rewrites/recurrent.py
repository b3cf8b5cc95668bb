"""GRU, LSTM and SimpleRNN: a loop over a sequence whose step is their formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from porting.conversion.effects import has_effect
from porting.lifting.loops import Loop, loop_of
from porting.lifting.patterns import Any_, Apply, Match, Nodes, Pattern, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph.graph import Node, node_of, references

FLOAT_TYPES = frozenset(TORCH_DTYPES[name] for name in FLOATS)

# -- the formulas -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part(Pattern):
    """One of `count` equal parts of the last axis of a matrix, each `units` wide, or `span` of them."""

    inner: Pattern
    index: int
    count: int
    units: int
    span: int = 1

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        if node is None or node.attrs.get("axis") not in (1, -1):
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
        last = self.count - 1  # -1 is what is left, of which the weights' shapes say how much it is
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


_X = Apply("list_get", Any_("items"), Any_("counter"))
_H, _C, _BIAS = Any_("h"), Any_("c"), Weight("bias")
_INPUT, _RECURRENT = Apply("matmul", _X, Weight("kernel")), Apply("matmul", _H, Weight("recurrent"))


def _sigmoid(p: Pattern) -> Pattern:
    return Apply("sigmoid", p)


def _tanh(p: Pattern) -> Pattern:
    return Apply("tanh", p)


def _gru(units: int) -> Pattern:
    """`z h + (1 - z) tanh(x_n + r h_n)`: the product with the state is reset, which has a bias of its own."""
    x, h = _INPUT + Row(_BIAS, 0) | _INPUT, _RECURRENT + Row(_BIAS, 1) | _RECURRENT
    z, r = (_sigmoid(Part(x, i, 3, units) + Part(h, i, 3, units)) for i in (0, 1))
    return z * _H + _one_minus(z) * _tanh(Part(x, 2, 3, units) + r * Part(h, 2, 3, units))


def _gru_reset_before(units: int) -> Pattern:
    """The state is reset before its product."""
    recurrent = Weight("recurrent")
    x, h = _INPUT + _BIAS | _INPUT, Apply("matmul", _H, Part(recurrent, 0, 3, units, span=2))
    z, r = (_sigmoid(Part(x, i, 3, units) + Part(h, i, 2, units)) for i in (0, 1))
    n = Part(x, 2, 3, units) + Apply("matmul", r * _H, Part(recurrent, 2, 3, units))
    return z * _H + _one_minus(z) * _tanh(n)


def _one_minus(p: Pattern) -> Pattern:
    return Apply("sub", 1.0, p)


_SUM = (_INPUT + _RECURRENT) + _BIAS | (_INPUT + _BIAS) + _RECURRENT | _INPUT + _RECURRENT


def _rnn(units: int) -> Pattern:
    return _tanh(_SUM)


def _lstm_cell(units: int) -> Pattern:
    i, f, g = (Part(_SUM, index, 4, units) for index in range(3))
    return _sigmoid(f) * _C + _sigmoid(i) * _tanh(g)


def _lstm(units: int) -> Pattern:
    return _sigmoid(Part(_SUM, 3, 4, units)) * _tanh(Any_("c_next"))


@dataclass(frozen=True)
class Kind:
    """A layer: its type, the formulas of its states (the output's first), and which of Keras's gates are torch's, in order."""

    layer: str
    formulas: tuple[Any, ...]
    gates: tuple[int, ...]
    biases: int = 1
    reset_after: bool | None = None

    def match(self, loop: Loop, states: Sequence[str], new: Sequence[Any], units: int) -> Match | None:
        """What the step of the loop is of this layer; None where it is something else."""
        if len(states) != len(self.formulas):
            return None
        found = {"h": states[0]} if len(states) == 1 else {"h": states[0], "c": states[1], "c_next": new[1]}
        match: Match | None = Match(found)
        for formula, value in reversed(list(zip(self.formulas, new, strict=True))):
            match = None if match is None else next(formula(units).find(loop, value, match), None)
        return match


_KINDS = (
    Kind("GRU", (_gru,), (1, 0, 2), biases=2),
    Kind("GRU", (_gru_reset_before,), (1, 0, 2), reset_after=False),
    Kind("LSTM", (_lstm, _lstm_cell), (0, 1, 2, 3)),
    Kind("SimpleRNN", (_rnn,), (0,)),
)

# -- the loop -----------------------------------------------------------------------------------------------------------


@rewrite("Recurrent", Apply("while_loop"), forward=True)
def recurrent(view: View, root: Node, match: Match) -> str:
    """A loop over a sequence: which layer it is, under which mask, and which of its results are used."""
    loop = loop_of(view, root)
    step = _Step.of(loop)
    kind, found = _kind(loop, step)
    x, backwards = loop.sequence(found["items"], found["counter"])
    loop.check_length(x)
    shape = view.shape(x)
    if shape is None or len(shape) != 3 or not isinstance(shape[2], int) or shape[0] is None:
        raise Refusal("its sequence is not known to be [n, length, features]")
    mask = _mask(loop, step, x, backwards)
    states = _first_states(loop, step, shape[0], mask)
    results = _Results.of(loop, step, x, mask)
    operands = (x, mask, *states) if mask is not None or states else (x,)
    names, values = _weights(loop, found, kind, shape[2], step.units)
    _check_other_uses(view, root, set(names.values()), operands)
    args = {
        "input_size": shape[2],
        "hidden_size": step.units,
        "bias": "bias_ih" in names,
        "return_sequences": bool(results.sequence),
        "return_state": results.several,
        "go_backwards": backwards,
        "zero_output": step.zero_output,
        **({"reset_after": kind.reset_after} if kind.reset_after is not None else {}),
    }
    refs = _outside(view, names)
    view.layer(root, kind.layer, args, *operands, weights=refs, values=values, called=_scope(names["weight_ih"]))
    view.sweep()
    _connect(view, root, results, shape, step, view.dtype(x))
    for name in refs.values():
        if not view.users.get(name):
            view.nodes.pop(name, None)
    return kind.layer


def _kind(loop: Loop, step: _Step) -> tuple[Kind, Match]:
    for kind in _KINDS:
        found = kind.match(loop, step.states, step.new, step.units)
        if found is not None:
            return kind, found
    raise Refusal("its step is not that of a GRU, LSTM or SimpleRNN of sigmoid and tanh")


def _mask(loop: Loop, step: _Step, x: str, backwards: bool) -> str | None:
    found = {loop.mask(condition) for condition in step.conditions}
    if not found:
        return None
    mask, reverse = found.pop()
    if found or reverse != backwards or loop.view.shape(mask) != (loop.view.shape(x) or ())[:2]:
        raise Refusal("its mask is not that of its sequence")
    return mask


def _first_states(loop: Loop, step: _Step, rows: Any, mask: str | None) -> list[Any]:
    """What the states start with; nothing where that is zero."""
    states = [loop.before[name] for name in step.states]
    if all(map(loop.is_zero, states)):
        return []
    if mask is not None or any(loop.view.shape(ref) != (rows, step.units) for ref in states):
        raise Refusal("its first state is not zero, and it has a mask or the state is not known to be [n, units]")
    return states


@dataclass(frozen=True)
class _Step:
    """What one step does: the states, the values that they take where the mask lets them, and how many numbers each is."""

    states: tuple[str, ...]
    new: tuple[Any, ...]
    conditions: tuple[Any, ...]
    zero_output: bool
    units: int

    @staticmethod
    def of(loop: Loop) -> _Step:
        """Reads the writes of a loop; refuses what is no layer's."""
        output = loop.written.inputs[2]
        chosen = loop.node(output, "where")
        conditions: list[Any] = []
        zero = False
        states = loop.states
        if chosen is not None:
            condition, value, other = chosen.inputs
            zero = loop.is_zero(other)
            previous = [name for name in states if loop.after[name] == output and (zero or name == other)]
            if len(previous) != 1 or not (zero or loop.is_zero(loop.before[previous[0]])):
                raise Refusal("what it gives where its mask is off is neither zero nor the output before")
            states = [name for name in states if name not in previous]
            output = value
            conditions.append(condition)
        new: list[Any] = []
        for name in states:
            kept = loop.node(loop.after[name], "where") if chosen is not None else None
            if chosen is not None and (kept is None or kept.inputs[2] != name):
                raise Refusal("its mask does not keep its states")
            new.append(loop.after[name] if kept is None else kept.inputs[1])
            conditions += [] if kept is None else [kept.inputs[0]]
        units = [(loop.view.shape(loop.place(name)) or (None,))[-1] for name in states]
        if not states or new[0] != output or len(set(units)) != 1 or not isinstance(units[0], int):
            raise Refusal("its output is not its first state, or the size of its states is not known")
        return _Step(tuple(states), tuple(new), tuple(dict.fromkeys(conditions)), zero, units[0])


# -- results ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Results:
    """What is used of a loop: nodes that are all its outputs, or the last; references to a state -> which one."""

    sequence: tuple[Node, ...]
    last: tuple[Node, ...]
    states: Mapping[str, int]

    @property
    def several(self) -> bool:
        """Whether the layer has to give more than one thing. The last output is the first state."""
        return any(self.states.values()) or bool(self.sequence and (self.last or self.states))

    @staticmethod
    def of(loop: Loop, step: _Step, x: str, mask: str | None) -> _Results:
        view, root = loop.view, loop.root
        stacks = [user for user in view.consumers(root.name) if loop.place(loop.list_of) in user.inputs]
        odd = next((user for user in stacks if user.op != "list_stack" or view.is_output(user.name)), None)
        users = [user for stack in stacks for user in view.consumers(stack.name)]
        odd = odd or next((user for user in users if not _is_sequence(user) and not _is_last(user)), None)
        if odd is not None:
            raise Refusal(f"its outputs are also used by {odd.name!r}, other than as a sequence")
        sequence, last = tuple(filter(_is_sequence, users)), tuple(filter(_is_last, users))
        if (not loop.keeps_all(x) and sequence) or (step.zero_output and last):
            raise Refusal("its outputs are not as many as its steps, or its last output may be masked")
        places = {loop.place(name): i for i, name in enumerate(step.states)}
        used = {ref for user in view.consumers(root.name) for ref in references(user.inputs)}
        used = {
            ref for ref in (used | set(view.outputs.values())) - {loop.place(loop.list_of)} if node_of(ref) == root.name
        }
        if used - set(places) or (mask is not None and any(places[ref] for ref in used)):
            raise Refusal("what is used of it is neither an output nor a state, or is a cell's state under a mask")
        return _Results(sequence, last, {ref: places[ref] for ref in used})


def _is_sequence(user: Node) -> bool:
    return user.op == "transpose" and tuple(user.attrs["perm"]) == (1, 0, 2)


def _is_last(user: Node) -> bool:
    return user.op == "select" and user.attrs["axis"] == 0 and user.inputs[1] == -1


def _connect(view: View, root: Node, results: _Results, shape: tuple[Any, ...], step: _Step, dtype: str | None) -> None:
    """Whatever used the loop's results uses the layer's: the one that it gives, or all that it gives one after the other."""
    state = (shape[0], step.units)
    shapes = [(*shape[:2], step.units) if results.sequence else state]
    shapes += [state] * len(step.states) if results.several else []
    refs = [f"{root.name}:{i}" for i in range(len(shapes))] if results.several else [root.name]
    for ref in results.states:
        view.settle(ref, state)
    view.learn(root, {ref: (dtype, spec) for ref, spec in zip(refs, shapes, strict=True)})
    view.redirect(root, {ref: refs[i + 1] if results.several else root.name for ref, i in results.states.items()})
    for nodes, ref in ((results.sequence, refs[0]), (results.last, refs[1] if results.several else refs[0])):
        for node in nodes:
            view.settle(node.name, shapes[0] if node in results.sequence else state)
            view.alias(node, ref)
            view.sweep()


# -- weights ------------------------------------------------------------------------------------------------------------


def _weights(
    loop: Loop, found: Match, kind: Kind, features: int, units: int
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The layer's weights by its own names for them: the names of their variables, and their values in torch's order."""
    store, width = loop.store, units * len(kind.gates)
    shapes = {"kernel": (features, width), "recurrent": (units, width), "bias": (2, width)[2 - kind.biases :]}
    own = {part: str(loop.nodes[node_of(found[part])].attrs["tensor"]) for part in shapes if found.get(part)}
    for part, name in own.items():
        if tuple(store[name].shape) != shapes[part] or store[name].dtype not in FLOAT_TYPES:
            raise Refusal(f"its weight {name!r} is not of floats {list(shapes[part])}")
    names = {"weight_ih": own["kernel"], "weight_hh": own["recurrent"]}
    values = {part: _gates(store[name].T, kind.gates) for part, name in names.items()}
    if "bias" in own:
        rows = store[own["bias"]].reshape(kind.biases, width)
        biases = {part: _gates(row, kind.gates) for part, row in zip(("bias_ih", "bias_hh"), rows, strict=False)}
        names, values = names | dict.fromkeys(biases, own["bias"]), values | biases
    return names, values


def _gates(weight: Tensor, order: Sequence[int]) -> Tensor:
    """The rows of the gates in another order."""
    gates = weight.chunk(len(order))
    return torch.cat([gates[index] for index in order])


def _check_other_uses(view: View, root: Node, tensors: set[str], operands: Sequence[Any]) -> None:
    """The weights change their layout, so that nothing that stays may use them: what only prepares the loop goes with it."""
    live: set[str] = set()
    pending = [node_of(ref) for ref in view.outputs.values()]
    pending += [node.name for node in view.nodes.values() if has_effect(node)]
    while pending:
        name = pending.pop()
        node = view.nodes.get(name)
        if node is None or name in live:
            continue
        live.add(name)
        pending += map(node_of, references(tuple(operands) if name == root.name else node.inputs))
    for name in sorted(live):
        node = view.nodes[name]
        if node.op == "parameter" and node.attrs["tensor"] in tensors:
            raise Refusal(f"its weight {node.attrs['tensor']!r} is also used outside of it")


def _scope(tensor: str) -> str:
    """The layer that a variable is called after: a cell is the inside of its layer."""
    scopes = tensor.split(".")[:-1]
    return ".".join(scopes[:-1] if len(scopes) > 1 and scopes[-1].endswith("_cell") else scopes)


def _outside(view: View, names: Mapping[str, str]) -> dict[str, str]:
    """A node outside the loop for each variable that the layer takes."""
    found = {str(node.attrs["tensor"]): name for name, node in view.nodes.items() if node.op == "parameter"}
    for tensor in sorted(set(names.values()) - set(found)):
        found[tensor] = f"{tensor}/outside"
        view.nodes[found[tensor]] = Node(found[tensor], "parameter", (), {"tensor": tensor})
    return {part: found[tensor] for part, tensor in names.items()}
