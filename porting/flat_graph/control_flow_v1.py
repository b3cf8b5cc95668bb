"""TF1 control flow made functional: Switch, Merge, Enter, Exit, NextIteration and LoopCond become If and While nodes.

A TF1 graph spells a branch as `Merge(f(Switch(x, p):0), g(Switch(x, p):1))` and a loop as a cycle
`Merge(Enter(x), NextIteration(body(Switch(merge, LoopCond):1)))` that leaves through `Exit(Switch(merge, LoopCond):0)`.
What lies between those nodes is cut out as a graph of its own and becomes the body of an If or While node, inside before outside.

Source: tensorflow/compiler/tf2xla/functionalize_while.cc and functionalize_cond.cc, which do the same for XLA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from porting.errors import CorruptModelError
from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of

OPS = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"})
_PORTS = {"output_false": 0, "output_true": 1, "output": 0, "value_index": 1}
_PASSES = frozenset({"Identity", "PlaceholderWithDefault"})


def kind(node: Node) -> str:
    """The op without the "Ref" of the variants that pass reference variables on."""
    plain = node.op.removeprefix("Ref")
    return plain if plain in OPS else node.op


def is_needed(nodes: Iterable[Node]) -> bool:
    """True where one of `nodes` is TF1 control flow."""
    return any(kind(node) in OPS for node in nodes)


def functionalize(
    nodes: Mapping[str, Node], outputs: Mapping[str, str], effects: Iterable[str]
) -> tuple[dict[str, Node], dict[str, str], list[str]]:
    """`nodes` (everything that runs, control inputs still there) with If and While instead of TF1's control flow.

    Gives the nodes, the outputs and the effects (assertions, which may have moved into a branch) anew.
    """
    lowering = _Lowering(dict(nodes), list(effects))
    lowering.settle_constant_branches()
    for node in list(lowering.nodes.values()):
        if kind(node) == "LoopCond":
            lowering.loop(node.name)
    lowering.branches()
    resolved = {name: lowering.resolve(ref) for name, ref in outputs.items()}
    rewritten = {name: replace(node, inputs=lowering.inputs(node)) for name, node in lowering.nodes.items()}
    return rewritten, resolved, lowering.effects


@dataclass
class _Cut:
    """A part of the graph cut out at its boundaries: the graph, and what each of its inputs is outside."""

    graph: Graph
    operands: dict[str, str]  # name of the input -> reference outside


class _Lowering:
    """The replacement, node by node. Inner loops and branches are replaced before those around them.

    Of `while i < n: i = i + 1`, which TF1 writes as

        enter = Enter(zero);  merge = Merge(enter, next);  test = Less(merge, n);  go = LoopCond(test)
        switch = Switch(merge, go);  sum = Add(switch:1, one);  next = NextIteration(sum);  exit = Exit(switch:0)

    `loop("go")` cuts twice, each time upstream to the border {merge, switch, Enter}, which is the loop's variables: "test" gives the
    graph of the condition, "sum" that of the body. `go/While` is written with both, and `exit` becomes an alias of `go/While:0`: what
    used it finds that by `resolve`. Nothing is removed here; `flatten` leaves out what no output needs.

    `cut` calls `_replace` for each node that it meets, and `loop` and `branch` call `cut`: that is how the inside comes first.
    """

    def __init__(self, nodes: dict[str, Node], effects: list[str]) -> None:
        self.nodes = nodes
        self.effects = effects
        self._alias: dict[tuple[str, int], str] = {}  # an output of a node that is replaced -> what replaces it
        self._loops: dict[str, str] = {}  # LoopCond -> the While node that replaces its loop
        self._dead: set[tuple[str, int]] = set()

    # -- references -------------------------------------------------------------------------------------------------------

    def output(self, reference: str) -> tuple[str, int]:
        """The node and the number of the output that `reference` names; "s:output_true:0" and "s:1" are the same."""
        name, _, rest = reference.partition(":")
        argument, _, index = rest.rpartition(":")
        if argument in _PORTS and name in self.nodes and kind(self.nodes[name]) in OPS:
            return name, _PORTS[argument]
        return name, int(index or 0)

    def resolve(self, reference: str) -> str:
        """What `reference` is after the replacements so far."""
        while (found := self._alias.get(self.output(reference))) is not None:
            reference = found
        return reference

    def inputs(self, node: Node) -> tuple[str, ...]:
        return tuple(self.resolve(ref) for ref in node.inputs if not ref.startswith("^"))

    def controls(self, node: Node) -> Iterator[str]:
        return (ref[1:] for ref in node.inputs if ref.startswith("^"))

    # -- predicates that are known ----------------------------------------------------------------------------------------

    def settle_constant_branches(self) -> None:
        """A Switch on a constant (dropout under a training flag) passes its value on to one side; the other side is dead."""
        for node in self.nodes.values():
            if kind(node) == "Switch":
                known = self._constant(node.inputs[1])
                if known is not None:
                    self._alias[node.name, int(known)] = node.inputs[0]
                    self._dead.add((node.name, int(not known)))
        if not self._dead:
            return
        dead = self._spread()
        self.effects = [name for name in self.effects if name not in dead]
        for node in self.nodes.values():
            if kind(node) != "Merge" or node.name in dead:
                continue
            data = [ref for ref in node.inputs if not ref.startswith("^")]
            alive = [ref for ref in data if node_of(ref) not in dead and self.output(ref) not in self._dead]
            if len(alive) == 1 and len(data) == 2:
                self._alias[node.name, 0] = alive[0]
        self.nodes = {name: node for name, node in self.nodes.items() if name not in dead}

    def _constant(self, reference: str) -> bool | None:
        negated = False
        while True:
            node = self.nodes.get(node_of(reference))
            if node is None:
                return None
            if node.op == "LogicalNot":
                negated = not negated
            elif node.op == "Const":
                value = node.attrs["value"]
                return bool(value.reshape(-1)[0]) != negated if value.size == 1 else None
            elif node.op not in _PASSES:
                return None
            reference = node.inputs[0]

    def _spread(self) -> set[str]:
        """The nodes that never run: those with a dead operand, and a Merge whose operands are all dead."""
        dead: set[str] = set()
        changed = True
        while changed:
            changed = False
            for node in reversed(self.nodes.values()):  # operands mostly stand behind their users
                if node.name in dead:
                    continue
                states = [
                    self._is_dead(ref, dead)
                    for ref in node.inputs
                    if not (kind(node) == "Merge" and ref.startswith("^"))
                ]
                if states and (all(states) if kind(node) == "Merge" else any(states)):
                    dead.add(node.name)
                    changed = True
        return dead

    def _is_dead(self, reference: str, dead: set[str]) -> bool:
        return node_of(reference.removeprefix("^")) in dead or (
            not reference.startswith("^") and self.output(reference) in self._dead
        )

    # -- cutting out ------------------------------------------------------------------------------------------------------

    def cut(
        self, outputs: Mapping[str, str], boundary: Callable[[Node, int], str | None], effects: Iterable[str] = ()
    ) -> _Cut:
        """Everything upstream of `outputs` and `effects` up to a boundary.

        `boundary(node, output)` gives the reference outside for which an output of a node stands, None inside.
        """
        operands: dict[str, str] = {}
        specs: list[TensorSpec] = []
        named: dict[tuple[str, int], str] = {}
        ordered: dict[str, Node] = {}

        def place(reference: str) -> str:
            reference = self.resolve(reference)
            key = self.output(reference)
            node = self.nodes.get(key[0])
            if node is None:
                outside = reference
            else:
                outside = boundary(node, key[1])
                if outside is None:
                    return reference
            if key not in named:
                named[key] = f"{key[0]}.{key[1]}"
                operands[named[key]] = outside
                specs.append(TensorSpec(named[key], str(node.attrs.get("T", "")) if node else "", None))
            return named[key]

        def visit(root: str) -> None:
            pending = [(root, False)]
            while pending:
                name, ready = pending.pop()
                if name in ordered or name not in self.nodes:
                    continue
                node = self.nodes[name]
                self._convert_before(node)
                refs = [place(ref) for ref in self.inputs(node)]
                if ready:
                    ordered[name] = replace(node, inputs=tuple(refs))
                else:
                    pending.append((name, True))
                    pending += [(node_of(ref), False) for ref in refs if ref not in operands]

        placed = {name: self._placed(ref, place, visit) for name, ref in outputs.items()}
        for name in effects:
            visit(name)
        graph = Graph(tuple(specs), tuple(ordered.values()), placed)
        return _Cut(graph, operands)

    def _placed(self, reference: str, place: Callable[[str], str], visit: Callable[[str], None]) -> str:
        name = node_of(reference)
        if name in self.nodes:
            self._convert_before(self.nodes[name])
        placed = place(reference)
        if node_of(placed) in self.nodes:
            visit(node_of(placed))
        return placed

    def _convert_before(self, node: Node) -> None:
        """Loops and branches upstream of `node` are replaced before `node` is looked at."""
        for ref in node.inputs:
            if ref.startswith("^"):
                continue
            above = self.nodes.get(node_of(self.resolve(ref)))
            if above is not None:
                self._replace(above)
        self._replace(node)

    def _replace(self, node: Node) -> None:
        if kind(node) == "Exit" and (node.name, 0) not in self._alias:
            self.loop(self._loop_of(node))
        elif kind(node) == "Merge" and (node.name, 0) not in self._alias and not self._in_loop(node):
            self.branch(node)

    # -- loops ------------------------------------------------------------------------------------------------------------

    def _loop_of(self, leaving: Node) -> str:
        switch = self.nodes[node_of(leaving.inputs[0])]
        return self._loop_condition(switch) or _corrupt(leaving, "leaves no loop")

    def _loop_condition(self, switch: Node) -> str | None:
        above = self.nodes.get(node_of(switch.inputs[1])) if kind(switch) == "Switch" else None
        return above.name if above is not None and kind(above) == "LoopCond" else None

    def _in_loop(self, merge: Node) -> bool:
        """True for the Merge with which a loop's variable begins."""
        above = [self.nodes.get(node_of(ref)) for ref in merge.inputs if not ref.startswith("^")]
        return any(node is not None and kind(node) == "NextIteration" for node in above)

    def loop(self, condition: str) -> None:
        """Replaces the loop of one LoopCond by a While node. Its operands: the variables, then what the loop only reads."""
        if condition in self._loops:
            return
        name = self._loops[condition] = f"{condition}/While"
        switches = [node for node in self.nodes.values() if self._loop_condition(node) == condition]
        merges = {node_of(switch.inputs[0]): switch for switch in switches}
        variables: list[tuple[str, str, str]] = []  # the Merge, what it begins with, what follows
        for merge in merges:
            above = [self.nodes[node_of(ref)] for ref in self.nodes[merge].inputs if not ref.startswith("^")]
            start = next(node for node in above if kind(node) == "Enter")
            following = next(node for node in above if kind(node) == "NextIteration")
            variables.append((merge, start.name, following.inputs[0]))
        by_switch = {switch.name: node_of(switch.inputs[0]) for switch in switches}

        def boundary(node: Node, output: int) -> str | None:
            if node.name in merges:
                return f"{node.name}:0"
            if node.name in by_switch:
                return f"{by_switch[node.name]}:0"
            return f"{node.name}:0" if kind(node) == "Enter" else None

        own = self._effects_within({*merges, *by_switch})
        test = self.cut({"output": self.nodes[condition].inputs[0]}, boundary)
        body = self.cut({merge: following for merge, _, following in variables}, boundary, own)
        self.effects = [effect for effect in self.effects if effect not in own]
        operands = [f"{merge}:0" for merge, _, _ in variables]
        operands += [ref for ref in {**_reversed(test.operands), **_reversed(body.operands)} if ref not in operands]
        starts = {f"{merge}:0": self.nodes[start].inputs[0] for merge, start, _ in variables}
        starts |= {
            ref: self.nodes[node_of(ref)].inputs[0]
            for ref in operands
            if ref not in starts and node_of(ref) in self.nodes
        }
        outside = tuple(self.resolve(starts.get(ref, ref)) for ref in operands)
        attrs = {
            "cond": _with_inputs(test, operands, {"output": test.graph.outputs["output"]}),
            "body": _with_inputs(body, operands, body.graph.outputs, pass_on=len(variables)),
        }
        self.nodes[name] = Node(name, "While", outside, attrs)
        positions = {merge: i for i, (merge, _, _) in enumerate(variables)}
        for node in list(self.nodes.values()):
            if kind(node) == "Exit" and node_of(node.inputs[0]) in by_switch:
                self._alias[node.name, 0] = f"{name}:{positions[by_switch[node_of(node.inputs[0])]]}"

    def _effects_within(self, borders: set[str]) -> list[str]:
        """The effects that depend on what happens between `borders`."""
        found: list[str] = []
        for effect in self.effects:
            pending, seen = [effect], set[str]()
            while pending:
                name = pending.pop()
                if name in borders:
                    found.append(effect)
                    break
                if name in seen or name not in self.nodes or kind(self.nodes[name]) == "Exit":
                    continue
                seen.add(name)
                pending += [node_of(ref) for ref in self.inputs(self.nodes[name])]
        return found

    # -- branches ---------------------------------------------------------------------------------------------------------

    def branches(self) -> None:
        for node in list(self.nodes.values()):
            if kind(node) == "Merge" and (node.name, 0) not in self._alias and not self._in_loop(node):
                self.branch(node)
        for _ in range(64):  # as deep as branches may nest
            guarded = [(effect, self._guard(effect)) for effect in self.effects]
            if not any(guard for _, guard in guarded):
                return
            self.effects = [self._guarded(effect, *guard) if guard else effect for effect, guard in guarded]

    def branch(self, merge: Node) -> None:
        """Replaces a Merge, and those of the same tf.cond, by one If node."""
        predicate = self._sides(merge)[0]
        scope = merge.name.rpartition("/")[0]
        together: list[tuple[Node, str, str]] = []
        for node in list(self.nodes.values()):
            if (
                kind(node) != "Merge"
                or (node.name, 0) in self._alias
                or self._in_loop(node)
                or node.name.rpartition("/")[0] != scope
            ):
                continue
            found, otherwise, then = self._sides(node)
            if found == predicate and (node.name, 0) not in self._alias:
                together.append((node, otherwise, then))
        name = f"{merge.name}/If"
        boundary = self._switch_boundary
        cuts = [self.cut({node.name: pair[side] for node, *pair in together}, boundary) for side in (0, 1)]
        operands = list({**_reversed(cuts[0].operands), **_reversed(cuts[1].operands)})
        attrs = {
            "then_branch": _with_inputs(cuts[1], operands, cuts[1].graph.outputs),
            "else_branch": _with_inputs(cuts[0], operands, cuts[0].graph.outputs),
        }
        self.nodes[name] = Node(name, "If", (predicate, *operands), attrs)
        index = f"{merge.name}/BranchIndex"
        self.nodes[index] = Node(index, "BranchIndex", (predicate,))
        for i, (node, otherwise, _) in enumerate(together):
            self._alias[node.name, 0] = f"{name}:{i}"
            if otherwise == self.resolve(node.inputs[0]):  # tf.cond puts the false side first
                self._alias[node.name, 1] = index

    def _switch_boundary(self, node: Node, output: int) -> str | None:
        if kind(node) != "Switch" or self._loop_condition(node):
            return None
        return self.resolve(node.inputs[0])

    def _sides(self, merge: Node) -> tuple[str, str, str]:
        """The predicate of a Merge, and its operands of the false and of the true side."""
        data = [ref for ref in merge.inputs if not ref.startswith("^")]
        if len(data) != 2:
            _corrupt(merge, f"joins {len(data)} values; only those of tf.cond, which joins two, are supported")
        found = [self._origin(ref) for ref in data]
        known = next((item for item in found if item), None) or _corrupt(merge, "joins values that no Switch parted")
        predicate, side = known
        if found[0] is None or found[0] != known:
            side = not side  # `known` is of the second operand
        refs = [self.resolve(ref) for ref in data]
        return (predicate, refs[1], refs[0]) if side else (predicate, refs[0], refs[1])

    def _origin(self, reference: str) -> tuple[str, bool] | None:
        """The predicate and the side of the Switch that a value comes from, by data or, for a constant, by control."""
        pending, seen, controls = [reference], set[str](), list[str]()
        while pending or controls:
            ref = self.resolve(pending.pop(0) if pending else controls.pop(0))
            name, output = self.output(ref)
            node = self.nodes.get(name)
            if node is None:
                continue
            if kind(node) == "Switch" and not self._loop_condition(node):
                return self._predicate(node.inputs[1]), bool(output)
            if name in seen:
                continue
            seen.add(name)
            self._replace(node)
            if (name, output) in self._alias:
                pending.append(self._alias[name, output])
                continue
            pending += self.inputs(node)
            controls += self.controls(node)
        return None

    def _predicate(self, reference: str) -> str:
        """A predicate without the Identity nodes behind it, so that equal ones are equal."""
        reference = self.resolve(reference)
        while (node := self.nodes.get(node_of(reference))) is not None and node.op == "Identity":
            reference = self.resolve(node.inputs[0])
        return reference

    def _guard(self, effect: str) -> tuple[str, bool] | None:
        """The predicate and the side under which an effect runs; None where it always does."""
        data = [origin for ref in self.inputs(self.nodes[effect]) if (origin := self._origin_by_data(ref))]
        return data[0] if data else None

    def _origin_by_data(self, reference: str) -> tuple[str, bool] | None:
        pending, seen = [reference], set[str]()
        while pending:
            name, output = self.output(self.resolve(pending.pop()))
            node = self.nodes.get(name)
            if node is None or name in seen:
                continue
            seen.add(name)
            if kind(node) == "Switch" and not self._loop_condition(node):
                return self._predicate(node.inputs[1]), bool(output)
            pending += self.inputs(node)
        return None

    def _guarded(self, effect: str, predicate: str, side: bool) -> str:
        """An effect of one branch as an If node whose other branch is empty."""
        part = self.cut({}, self._switch_boundary, [effect])
        operands = list(_reversed(part.operands))
        full = _with_inputs(part, operands, {})
        empty = Graph(full.inputs, (), {})
        name = f"{effect}/If"
        attrs = {"then_branch": full if side else empty, "else_branch": empty if side else full}
        self.nodes[name] = Node(name, "If", (predicate, *operands), attrs)
        return name


def _reversed(operands: Mapping[str, str]) -> dict[str, None]:
    return dict.fromkeys(operands.values())


def _with_inputs(part: _Cut, operands: list[str], outputs: Mapping[str, str], *, pass_on: int | None = None) -> Graph:
    """A graph with one input per operand. `pass_on`: the operands from there on are also its last outputs."""
    names = [f"operand_{i}" for i in range(len(operands))]
    renamed = {name: names[operands.index(outside)] for name, outside in part.operands.items()}
    dtypes = {outside: spec.dtype for spec, outside in zip(part.graph.inputs, part.operands.values(), strict=True)}
    specs = tuple(
        TensorSpec(name, dtypes.get(outside, ""), None) for name, outside in zip(names, operands, strict=True)
    )
    nodes = tuple(
        replace(node, inputs=tuple(renamed.get(ref, ref) for ref in node.inputs)) for node in part.graph.nodes
    )
    results = {name: renamed.get(ref, ref) for name, ref in outputs.items()}
    if pass_on is not None:
        results |= {f"{name}/same": name for name in names[pass_on:]}
    return Graph(specs, nodes, results)


def _corrupt(node: Node, why: str) -> Any:
    raise CorruptModelError(f"{node.op} {node.name!r} {why}")
