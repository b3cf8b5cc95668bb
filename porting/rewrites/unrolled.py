"""Recurrent layers without a loop: one cell after another, all with the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from porting.lifting.cell_layers import Layer
from porting.lifting.cells import KINDS, Kind
from porting.lifting.patterns import Match, Nodes, Pattern, Refusal, number
from porting.lifting.registry import rewrite
from porting.lifting.steps import mask_of_lengths, replace_stack, sequence_of
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node, node_of, references

_STEP = ("x", "h", "c", "c_next")


@dataclass(frozen=True)
class _Chain(Pattern):
    """Two or more steps of a cell, up to the operand; each takes the state of the one before. Binds `kind`, `units`, and
    `steps`: their matches, first to last."""

    def roots(self) -> frozenset[str]:
        return frozenset(op for kind in KINDS for op in kind.formulas[0](1).roots())

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        assert isinstance(nodes, View)
        shape = None if operand in nodes.inside else nodes.shape(operand)
        if shape is None or len(shape) != 2 or not isinstance(shape[1], int) or nodes.dtype(operand) not in FLOATS:
            return
        for kind in KINDS:
            for last in kind.matches(nodes, operand, shape[1], Match()):
                steps = [last]
                while (step := _before(nodes, kind, steps[-1], shape[1])) is not None:
                    steps.append(step)
                if len(steps) > 1:
                    yield Match({"kind": kind, "steps": steps[::-1], "units": shape[1]})
                    return


def _before(view: View, kind: Kind, step: Match, units: int) -> Match | None:
    """The step before `step`, with the same weights and activations; None if there is none."""
    known = Match({name: value for name, value in step.found.items() if name not in _STEP})
    for found in kind.matches(view, _new(view, step["h"]), units, known):
        if _keeps(view, step, found):
            return found
    return None


def _keeps(view: View, step: Match, before: Match) -> bool:
    """Whether `step` takes the state that the step `before` it gives, under one mask or none."""
    pairs = [(step["h"], before["h"])]
    if "c" in step.found:
        pairs.append((step["c"], before["c"]))
        if _new(view, step["c"]) != before["c_next"]:
            return False
    chosen = [_chosen(view, state) for state, _ in pairs]
    if chosen[0] is None:
        return all(node is None for node in chosen)
    condition = chosen[0].inputs[0]
    return all(
        node is not None and (node.inputs[0], node.inputs[2]) == (condition, old)
        for node, (_, old) in zip(chosen, pairs, strict=True)
    )


def _chosen(view: View, state: Any) -> Node | None:
    """The `where` of a masked step."""
    node = view.node(state)
    return node if node is not None and node.op == "where" else None


def _new(view: View, state: Any) -> Any:
    """The state that a step gives where the mask is on."""
    node = _chosen(view, state)
    return state if node is None else node.inputs[1]


@rewrite("Recurrent", _Chain())
def unrolled(view: View, root: Node, match: Match) -> str:
    """A cell, applied to one step after another: determines the layer, its mask, and which of its results are used."""
    kind, steps, units = match["kind"], match["steps"], match["units"]
    view.inside |= {_new(view, step["h"]) for step in steps[1:]}
    xs = tuple(step["x"] for step in steps)
    rows, features = _sizes(view, xs)
    x, backwards = sequence_of(view, xs) or (None, False)
    conditions = _conditions(view, root, steps)
    lengths = _lengths(view, conditions)
    mask = _mask(view, conditions, (rows, len(steps)), backwards) if conditions and lengths is None else None
    states = _first_states(view, steps[0], (rows, units))
    operands = (*(xs if x is None else (x,)), mask, lengths, *states)
    results, zero = _results(view, root, steps, conditions)
    if results.keys() & _upstream(view, operands):
        raise Refusal("what it reads depends on what it gives")
    layer = Layer.of(view, kind, steps[-1], features, units)
    live = layer.check_other_uses(view, [root.name], results.keys(), operands)
    used = {name: place for name, place in results.items() if name in live}
    dtype = view.dtype(root.name)
    if x is None:
        x = view.before(root, "stack", *xs, axis=1, known=(dtype, (rows, len(steps), features)))
    if lengths is not None:
        mask = mask_of_lengths(view, root, x, lengths)
    place = view.before(root, "stack", x, axis=0, known=(None, None))  # becomes the call of the layer
    several = not all(isinstance(place, int) for place in used.values())
    sequence = any(isinstance(place, int) and (zero or place < len(steps) - 1) for place in used.values())
    layer.write(
        view,
        view.nodes[place],
        *((x, mask, *states) if mask or states else (x,)),
        return_sequences=sequence,
        return_state=several,
        go_backwards=backwards,
        zero_output=zero,
    )
    refs = [f"{place}:{i}" for i in range(1 + len(kind.formulas))] if several else [place]
    shapes = [(rows, len(steps), units) if sequence else (rows, units)] + [(rows, units)] * (len(refs) - 1)
    view.learn(view.nodes[place], {ref: (dtype, shape) for ref, shape in zip(refs, shapes, strict=True)})
    _connect(view, used, refs, len(steps))
    view.sweep()
    view.sort()
    return kind.layer


def _sizes(view: View, xs: Sequence[str]) -> tuple[Any, int]:
    """The number of rows and of features of a step."""
    shape, *others = {view.shape(x) for x in xs}
    if others or shape is None or len(shape) != 2 or shape[0] is None or not isinstance(shape[1], int):
        raise Refusal("its steps are not known to be [n, features]")
    return shape[0], shape[1]


def _conditions(view: View, root: Node, steps: Sequence[Match]) -> list[Any]:
    """The masks of the steps; empty if there are none."""
    chosen = [_chosen(view, step["h"]) for step in steps[1:]]
    if not any(chosen):
        return []
    last = {user.inputs[0] for user in view.consumers(root.name) if user.op == "where" and user.inputs[1] == root.name}
    if not all(chosen) or len(last) != 1:
        raise Refusal("not all of its steps are masked")
    return [node.inputs[0] for node in chosen if node is not None] + list(last)


def _lengths(view: View, conditions: Sequence[Any]) -> str | None:
    """The lengths `[n]` of the rows, if the masks of the steps are `lengths > step`."""
    found: set[Any] = set()
    for step, condition in enumerate(conditions):
        column = view.node(condition)
        longer = view.node(column.inputs[0]) if column is not None and column.op == "unsqueeze" else None
        if longer is None or longer.op != "greater" or longer.inputs[1] != step or view.rank(longer.inputs[0]) != 1:
            return None
        found.add(longer.inputs[0])
    return found.pop() if len(found) == 1 else None


def _mask(view: View, conditions: Sequence[Any], shape: tuple[Any, int], backwards: bool) -> str:
    """The mask `[n, length]` of which `conditions`, `[n, 1]` or `[n, units]`, are the steps."""
    tiled = [view.node(condition) for condition in conditions]
    columns = [
        node.inputs[0] if node is not None and node.op == "tile" else condition
        for node, condition in zip(tiled, conditions, strict=True)
    ]
    column, reverse = sequence_of(view, columns) or (None, backwards)
    added = view.node(column)
    if added is None or added.op != "unsqueeze" or added.attrs["axis"] not in (2, -1):
        raise Refusal("its mask is not one bool for each step")
    if view.dtype(added.inputs[0]) != "bool" or view.shape(added.inputs[0]) != shape or reverse != backwards:
        raise Refusal("its mask does not belong to its sequence")
    return str(added.inputs[0])


def _first_states(view: View, step: Match, shape: tuple[Any, int]) -> list[Any]:
    """The initial states; empty if they are zero."""
    states = [step[name] for name in ("h", "c") if name in step.found]
    if all(number(view, state) == 0 for state in states):
        return []
    if any(view.shape(state) != shape for state in states):
        raise Refusal("its initial state is not known to be [n, units]")
    return states


def _upstream(view: View, operands: Sequence[Any]) -> set[str]:
    """The nodes that `operands` depend on."""
    found: set[str] = set()
    pending = list(references(tuple(operands)))
    while pending:
        name = node_of(pending.pop())
        if name in view.nodes and name not in found:
            found.add(name)
            pending += references(view.nodes[name].inputs)
    return found


# -- results ------------------------------------------------------------------------------------------------------------


def _results(
    view: View, root: Node, steps: Sequence[Match], conditions: Sequence[Any]
) -> tuple[dict[str, int | str], bool]:
    """The nodes that give what the layer gives: the step of an output, or the name of a last state, `h` or `c`; and
    whether an output is zero, and not the one before, where the mask is off."""
    new = [*(_new(view, step["h"]) for step in steps[1:]), root.name]
    last = steps[-1]
    if not conditions:
        cells = {last["c_next"]: "c"} if "c" in last.found else {}
        return {name: step for step, name in enumerate(new)} | cells, False
    kept = [
        {node.name: node.inputs[2] for node in _masked(view, condition, value)}
        for condition, value in zip(conditions, new, strict=True)
    ]
    zeros = [{name for name, old in olds.items() if number(view, old) == 0} for olds in kept]
    zero = any(zeros[1:])
    found: dict[str, int | str] = {}
    outputs: set[str] = set()
    states = {steps[0]["h"]}
    for step, olds in enumerate(kept):
        repeated = {name for name, old in olds.items() if old in outputs}
        outputs = zeros[step] if zero or step == 0 else repeated
        states = {name for name, old in olds.items() if old in states}
        found |= dict.fromkeys(outputs, step)
    found |= dict.fromkeys(states - outputs, "h")
    if "c" in last.found:
        cells = _masked(view, conditions[-1], last["c_next"])
        found |= {node.name: "c" for node in cells if node.inputs[2] == last["c"]}
    return found, zero


def _masked(view: View, condition: Any, value: str) -> list[Node]:
    """The nodes that take `value` where `condition` is on."""
    return [user for user in view.consumers(value) if user.op == "where" and user.inputs[:2] == (condition, value)]


def _connect(view: View, used: Mapping[str, int | str], refs: Sequence[str], length: int) -> None:
    """Redirects users of the results to the layer's `refs`: its result, and its last states."""
    outputs = {name: place for name, place in used.items() if isinstance(place, int)}
    for name in used.keys() - outputs.keys():
        view.alias(view.nodes[name], refs[1 if used[name] == "h" else 2])
    whole = view.rank(refs[0]) == 3
    if whole:
        _connect_stacks(view, outputs, refs[0], length)
        view.sweep()
    for name, step in outputs.items():
        if not view.users.get(name) and not view.is_output(name):
            continue
        node, item = view.nodes[name], refs[0]
        if whole:
            known = view.dtype(name), view.shape(name)
            item = view.before(node, "select", refs[0], step if step < length - 1 else -1, axis=1, known=known)
        view.alias(node, item)


def _connect_stacks(view: View, outputs: Mapping[str, int], sequence: str, length: int) -> None:
    """Redirects users of the stack of all outputs, in their order or from the last to the first."""
    known = view.dtype(sequence), view.shape(sequence)
    stacks = {user.name: user for name in outputs for user in view.consumers(name) if user.op == "stack"}
    for stack in stacks.values():
        places = [outputs.get(ref) for ref in stack.inputs]
        if places not in (list(range(length)), list(range(length))[::-1]) or stack.attrs["axis"] not in (0, 1):
            continue
        items = sequence if places[0] == 0 else view.before(stack, "flip", sequence, axes=(1,), known=known)
        replace_stack(view, stack, items)
