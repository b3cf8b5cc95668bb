"""GRU, LSTM, SimpleRNN and ConvLSTM: a loop over a sequence whose step matches their formula. An LSTM with peepholes stays a loop: its
gates take the cell state too, which no kernel of torch's does. So does one with `num_proj`, whose output has another size
than its cell state, and a ConvLSTM with a mask or a dilation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from porting.lifting.cell_layers import Layer
from porting.lifting.cells import KINDS, Kind
from porting.lifting.loops import Loop, loop_of
from porting.lifting.patterns import Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.steps import is_mask_of, mask_of_lengths, turns_steps
from porting.lifting.view import View
from porting.lifting.weights import in_bodies
from torch_towers.graph.graph import Node, node_of, references

_PARTS = frozenset({"chunk", "slice", "split_sizes", "squeeze", "unstack"})
"""Ops that take parts of weights."""


@rewrite("Recurrent", Apply("while_loop"), forward=True)
def recurrent(view: View, root: Node, match: Match) -> str:
    """A loop over a sequence, or several with the same weights: determines its layer, or those of several cells that follow
    one another, its mask, and which of its results are used."""
    reading = _Reading.of(view, root)
    layers = reading.layers()
    readings = [reading, *(_Reading.of(view, loop) for loop in _with_weights(view, root, layers))]
    loops = [each.loop.root.name for each in readings]
    flags = _Flags.of(readings, layers)
    operands = [ref for each in readings for ref in each.operands()]
    for layer in layers:
        layer.check_other_uses(view, loops, loops, operands)
    calls: list[str] = []
    for name in loops:  # read again, since it may take what the one before gives
        again = _Reading.of(view, view.nodes[name]) if calls else reading
        calls = again.write(layers, flags, loops, calls)
    return layers[-1].kind.layer


@dataclass(frozen=True)
class _Reading:
    """A loop over the sequence `x`: its cells, first to last, their first states, and which of its results are used."""

    loop: Loop
    step: _Step
    cells: list[_Cell]
    x: str
    backwards: bool
    mask: str | None
    states: list[list[Any]]
    results: _Results

    @staticmethod
    def of(view: View, root: Node) -> _Reading:
        loop = loop_of(view, root)
        step = _Step.of(loop)
        cells = _cells(loop, step)
        x, backwards = loop.read(cells[0].found["x"])
        loop.check_length(x, step.lengths if step.zero_output else None)
        shape = view.shape(x)
        if shape is None or len(shape) < 3 or not isinstance(shape[-1], int) or shape[0] is None:
            raise Refusal("its sequence is not known to be [n, length, ..., features]")
        mask = _mask(loop, step, x, backwards)
        states = [_first_states(loop, cell, shape[0]) for cell in cells]
        apart = (mask is not None or step.lengths is not None) and bool(states[-1])
        results = _Results.of(loop, step, cells, x, apart=apart)
        return _Reading(loop, step, cells, x, backwards, mask, states, results)

    @property
    def masked(self) -> bool:
        return self.mask is not None or self.step.lengths is not None

    def operands(self) -> tuple[Any, ...]:
        return (self.x, self.mask, self.step.lengths, *(ref for refs in self.states for ref in refs))

    def layers(self) -> list[Layer]:
        features = [(self.loop.view.shape(self.x) or (0,))[-1], *(cell.units for cell in self.cells)]
        return [
            Layer.of(self.loop, cell.kind, cell.found, size, cell.units)
            for size, cell in zip(features, self.cells, strict=False)
        ]

    def write(self, layers: Sequence[Layer], flags: _Flags, loops: Sequence[str], made: Sequence[str]) -> list[str]:
        """Makes the loop, one of `loops` with the same weights, calls of the layers, and returns those; `made`: the calls
        that have made the layers, if there are any."""
        view, root, cells, x = self.loop.view, self.loop.root, self.cells, self.x
        shape, mask = view.shape(x) or (), self.mask
        if self.step.lengths is not None:
            mask = mask_of_lengths(view, root, x, self.step.lengths)
        masks = [mask] * len(cells)
        if mask is not None and self.backwards and len(cells) > 1:  # the first layer turns the steps around
            turned = view.before(root, "flip", mask, axes=(1,), known=("bool", shape[:2]))
            masks[1:] = [turned] * (len(cells) - 1)
        calls = [*(view.before(root, "stack", x, axis=0, known=(None, None)) for _ in cells[1:]), root.name]
        read = [x, *(f"{call}:0" if flags.several[i] else call for i, call in enumerate(calls))]
        for i in reversed(range(len(cells))):  # the loop first, which has all weights
            states = self.states[i]
            layers[i].write(
                view,
                view.nodes[calls[i]],
                *((read[i], masks[i], *states) if self.masked or states else (read[i],)),
                made=view.nodes[made[i]] if made else None,
                loops=loops,
                return_sequences=self.results.is_sequence(i),
                return_state=flags.several[i],
                go_backwards=self.backwards and i == 0,
                zero_output=flags.zero_output and i == len(cells) - 1,
            )
        for size in self.results.sizes:  # those of steps and rows
            view.rewrite(size, "size", x, axis=1 - size.attrs["axis"])
        _connect(view, root, calls, cells, self.results, flags.several, shape[:2], view.dtype(x))
        return calls


@dataclass(frozen=True)
class _Flags:
    """What all calls of the layers share: which layers return several results, and whether masked outputs are zero."""

    several: list[bool]
    zero_output: bool

    @staticmethod
    def of(readings: Sequence[_Reading], layers: Sequence[Layer]) -> _Flags:
        """Errors: `Refusal` if the loops are not the same layers."""
        first, *others = readings
        zero = {each.step.zero_output for each in readings if each.masked}
        for each in others:
            same = [layer.is_like(other) for layer, other in zip(layers, each.layers(), strict=False)]
            ways = (first.backwards, bool(first.results.sequence)) == (each.backwards, bool(each.results.sequence))
            if len(first.cells) != len(each.cells) or not all(same) or not ways or len(zero) > 1:
                raise Refusal(f"the loop {each.loop.root.name!r} has its weights, and is another layer")
        cells = range(len(layers))
        return _Flags([any(each.results.several(cell) for each in readings) for cell in cells], zero == {True})


def _with_weights(view: View, root: Node, layers: Sequence[Layer]) -> list[Node]:
    """The other loops that use the weights of the layers: in their bodies, or as operands."""
    tensors = {tensor for layer in layers for tensor in layer.names.values()}
    found = {node.name for node in view.nodes.values() if node.op == "while_loop" and tensors & in_bodies(node)}
    pending = [node for node in view.nodes.values() if node.op == "parameter" and node.attrs["tensor"] in tensors]
    while pending:
        for user in view.consumers(pending.pop().name):
            if user.op == "while_loop":
                found.add(user.name)
            elif user.op in _PARTS:
                pending.append(user)
    return [view.nodes[name] for name in view.nodes if name in found - {root.name}]


@dataclass(frozen=True)
class _Cell:
    """A cell of a step: its layer, its match, and its states, `h` first."""

    kind: Kind
    found: Match
    states: tuple[str, ...]
    size: tuple[Any, ...]
    """That of a row of its states: `(units,)`, or with spatial axes before the channels."""

    @property
    def units(self) -> int:
        return int(self.size[-1])


def _cells(loop: Loop, step: _Step) -> list[_Cell]:
    """The cells of a step, first to last: each takes the output of the one before."""
    new = dict(zip(step.states, step.new, strict=True))
    cells: list[_Cell] = []
    value = step.output
    while new:
        cell = _cell(loop, new, value)
        cells.insert(0, cell)
        new = {name: value for name, value in new.items() if name not in cell.states}
        value = cell.found["x"]
    if not cells:
        raise Refusal("it has no state")
    return cells


def _cell(loop: Loop, new: Mapping[str, Any], output: Any) -> _Cell:
    """The cell that gives `output`; `new`: the states -> their new values."""
    heads = [name for name, value in new.items() if value == output]
    if not heads:
        raise Refusal("its output is not one of its states")
    for name in heads:
        size = (loop.view.shape(loop.place(name)) or (None,))[1:]
        units = size[-1] if size else None
        if not isinstance(units, int):
            raise Refusal("the size of its states is not known")
        for kind in KINDS:
            for found in kind.matches(loop, output, units, Match({"h": name})):
                states = (name, found["c"]) if "c" in found.found else (name,)
                if len(states) == 1 or (states[1] != name and new.get(states[1]) == found["c_next"]):
                    return _Cell(kind, found, states, size)
    raise Refusal("its step is not that of a GRU, LSTM, SimpleRNN or ConvLSTM")


def _mask(loop: Loop, step: _Step, x: str, backwards: bool) -> str | None:
    found = {loop.mask(condition) for condition in step.conditions if step.lengths is None}
    if not found:
        return None
    mask, reverse = found.pop()
    if found or reverse != backwards or not is_mask_of(loop.view, mask, x):
        raise Refusal("its mask does not belong to its sequence")
    return mask


def _first_states(loop: Loop, cell: _Cell, rows: Any) -> list[Any]:
    """The initial states of a cell; empty if they are zero."""
    states = [loop.before[name] for name in cell.states]
    if all(map(loop.is_zero, states)):
        return []
    if any(loop.view.shape(ref) != (rows, *cell.size) or None in cell.size for ref in states):
        raise Refusal("its initial state is not known to be [n, units]")
    return states


@dataclass(frozen=True)
class _Step:
    """One step: its output, and the states and their new values, where the mask is on."""

    output: Any
    states: tuple[str, ...]
    new: tuple[Any, ...]
    conditions: tuple[Any, ...]
    zero_output: bool
    lengths: str | None = None

    @staticmethod
    def of(loop: Loop) -> _Step:
        """Reads the writes of a loop; refuses those of no known layer.

        `lengths`: those of the rows, where they are the condition instead of a mask; the new values come last then.
        """
        output = loop.written.inputs[2]
        chosen = loop.node(output, "where")
        if chosen is not None and not loop.is_mask(chosen.inputs[0]):
            chosen = None  # it is part of an activation
        conditions: list[Any] = []
        zero, lengths = False, None
        states = loop.states
        if chosen is not None:
            lengths = loop.lengths(chosen.inputs[0])
            condition, value, other = _chosen(chosen, lengths)
            zero = loop.is_zero(other)
            previous = [name for name in states if loop.after[name] == output and (zero or name == other)]
            none = zero and lengths is not None and not previous
            if not none and (len(previous) != 1 or not loop.is_zero(loop.before[previous[0]])):
                raise Refusal("its output where the mask is off is neither zero nor the previous output")
            states = [name for name in states if name not in previous]
            output = value
            conditions.append(condition)
        new: list[Any] = []
        for name in states:
            kept = loop.node(loop.after[name], "where") if chosen is not None else None
            condition, value, other = (None, loop.after[name], name) if kept is None else _chosen(kept, lengths)
            if other != name or (chosen is not None and kept is None):
                raise Refusal("its mask does not keep its states")
            new.append(value)
            conditions += [] if kept is None else [condition]
        if lengths is not None and {loop.lengths(condition) for condition in conditions} != {lengths}:
            raise Refusal("its states do not end with its output")
        return _Step(output, tuple(states), tuple(new), tuple(dict.fromkeys(conditions)), zero, lengths)


def _chosen(node: Node, lengths: str | None) -> tuple[Any, Any, Any]:
    """The condition of a `where`, what it takes in a step, and what it keeps."""
    condition, first, second = node.inputs
    return (condition, first, second) if lengths is None else (condition, second, first)


# -- results ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Results:
    """The used results of a loop: nodes of all outputs, or of the last; the sizes of all outputs; references to a state ->
    its cell, and its place among the cell's states. `cells`: how many there are.

    `apart`: the last output may not be the first state: no step may be unmasked, and the initial state is not zero.
    """

    sequence: tuple[Node, ...]
    last: tuple[Node, ...]
    sizes: tuple[Node, ...]
    states: Mapping[str, tuple[int, int]]
    cells: int
    apart: bool

    def is_sequence(self, cell: int) -> bool:
        """Whether the layer of a cell returns all outputs."""
        return cell < self.cells - 1 or bool(self.sequence)

    def several(self, cell: int) -> bool:
        """Whether the layer of a cell must return several results."""
        used = [place for owner, place in self.states.values() if owner == cell]
        if cell < self.cells - 1:
            return bool(used)
        return any(used) or (self.apart and bool(used)) or bool(self.sequence and (self.last or used))

    @staticmethod
    def of(loop: Loop, step: _Step, cells: Sequence[_Cell], x: str, *, apart: bool) -> _Results:
        view, root, keeps_all = loop.view, loop.root, loop.keeps_all(x)
        stacks = [user for user in view.consumers(root.name) if loop.place(loop.list_of) in user.inputs]
        odd = next((user for user in stacks if user.op != "list_stack" or view.is_output(user.name)), None)
        users = [user for stack in stacks for user in view.consumers(stack.name)]
        sizes = tuple(
            user for user in users if user.op == "size" and user.attrs["axis"] in ((0, 1) if keeps_all else (1,))
        )
        odd = odd or next((user for user in users if not (_is_sequence(user) or _is_last(user) or user in sizes)), None)
        if odd is not None:
            raise Refusal(f"its outputs are also used by {odd.name!r}, other than as a sequence")
        sequence, last = tuple(filter(_is_sequence, users)), tuple(filter(_is_last, users))
        if (not keeps_all and sequence) or (step.zero_output and last):
            raise Refusal("its outputs are not as many as its steps, or its last output may be masked")
        if apart and sequence and last:
            raise Refusal("its last output is used beside all outputs, and may not be its state")
        places = {loop.place(name): (i, at) for i, cell in enumerate(cells) for at, name in enumerate(cell.states)}
        used = {ref for user in view.consumers(root.name) for ref in references(user.inputs)}
        used = {
            ref for ref in (used | set(view.outputs.values())) - {loop.place(loop.list_of)} if node_of(ref) == root.name
        }
        if used - set(places):
            raise Refusal("a result that is used is neither an output nor a state")
        return _Results(sequence, last, sizes, {ref: places[ref] for ref in used}, len(cells), apart)


def _is_sequence(user: Node) -> bool:
    return turns_steps(user)


def _is_last(user: Node) -> bool:
    return user.op == "select" and user.attrs["axis"] == 0 and user.inputs[1] == -1


def _connect(
    view: View,
    root: Node,
    calls: Sequence[str],
    cells: Sequence[_Cell],
    results: _Results,
    several: Sequence[bool],
    size: tuple[Any, ...],
    dtype: str | None,
) -> None:
    """Redirects users of the loop's results to those of the layers; `several`: which layers return several; `size`: rows
    and steps."""
    for ref, (i, _) in results.states.items():
        view.settle(ref, (size[0], *cells[i].size))
    for i, (call, cell) in enumerate(zip(calls, cells, strict=True)):
        shapes = [(*size, *cell.size) if results.is_sequence(i) else (size[0], *cell.size)]
        shapes += [(size[0], *cell.size)] * len(cell.states) if several[i] else []
        refs = [f"{call}:{place}" for place in range(len(shapes))] if several[i] else [call]
        view.learn(view.nodes[call], {ref: (dtype, shape) for ref, shape in zip(refs, shapes, strict=True)})
    view.redirect(
        root,
        {ref: f"{calls[i]}:{place + 1}" if several[i] else calls[i] for ref, (i, place) in results.states.items()},
    )
    last = size[0], *cells[-1].size
    for nodes, place, shape in (
        (results.sequence, 0, (*size, *cells[-1].size)),
        (results.last, 1 if results.sequence and results.last else 0, last),
    ):
        for node in nodes:
            view.settle(node.name, shape)
            view.alias(node, f"{root.name}:{place}" if several[-1] else root.name)
            view.sweep()
