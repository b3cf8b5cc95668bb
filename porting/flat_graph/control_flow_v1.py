"""TF1 control flow made functional: Switch, Merge, Enter, Exit, NextIteration and LoopCond become If and While nodes.

In TF1 a branch is `Merge(f(Switch(x, p):0), g(Switch(x, p):1))`, and a loop is a cycle `Merge(Enter(x),
NextIteration(body(Switch(merge, LoopCond):1)))` that is left through `Exit(Switch(merge, LoopCond):0)`. The nodes in
between become a subgraph, the body of an If or While node; inner ones are converted first.

Source: tensorflow/compiler/tf2xla/functionalize_while.cc and functionalize_cond.cc, which do the same for XLA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from porting.errors import CorruptModelError
from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of

OPS = frozenset({"Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond"})
_PORTS = {"output_false": 0, "output_true": 1, "output": 0, "value_index": 1}
_PASSES = frozenset({"Identity", "PlaceholderWithDefault"})


def kind(node: Node) -> str:
    """The op without the "Ref" prefix of variants that pass reference variables."""
    plain = node.op.removeprefix("Ref")
    return plain if plain in OPS else node.op


def is_needed(nodes: Iterable[Node]) -> bool:
    """True if one of `nodes` is TF1 control flow."""
    return any(kind(node) in OPS for node in nodes)


def functionalize(
    nodes: Mapping[str, Node], outputs: Mapping[str, str], effects: Iterable[str]
) -> tuple[dict[str, Node], dict[str, str], list[str]]:
    """`nodes` (all that run, with control inputs) with If and While instead of TF1's control flow.

    Returns the new nodes, outputs and effects (assertions, which may have moved into a branch).
    """
    lowering = _Lowering(dict(nodes), list(effects))
    lowering.settle_constant_branches()
    for node in lowering.inside_first():
        if kind(node) == "LoopCond":
            lowering.loop(node.name)
        elif lowering.is_join(node):
            lowering.branch(node)
    effects = lowering.guarded(lowering.effects)
    resolved = {name: lowering.resolve(ref) for name, ref in outputs.items()}
    rewritten = {name: replace(node, inputs=lowering.inputs(node)) for name, node in lowering.nodes.items()}
    return rewritten, resolved, effects


@dataclass
class _Cut:
    """A subgraph: its graph, and the outer reference of each of its inputs."""

    graph: Graph
    operands: dict[str, str]  # name of the input -> outer reference


_Boundary = Callable[[Node, int], str | None]
"""The reference outside for which an output of a node stands; None inside."""


class _Variable(NamedTuple):
    """A variable of a loop: its Merge, the Enter that it begins with, and the reference to what it is at the next turn."""

    merge: str
    start: str
    following: str


class _Loop(NamedTuple):
    """A loop's variables, and the Merge of each of its Switch nodes."""

    variables: list[_Variable]
    merge_of: dict[str, str]


class _Lowering:
    """The conversion, node by node. Inner loops and branches are converted before outer ones.

    Of `while i < n: i = i + 1`, which TF1 writes as

        enter = Enter(zero);  merge = Merge(enter, next);  test = Less(merge, n);  go = LoopCond(test)
        switch = Switch(merge, go);  sum = Add(switch:1, one);  next = NextIteration(sum);  exit = Exit(switch:0)

    `loop("go")` cuts twice, each time upstream to the boundary {merge, switch, Enter}, the loop's variables: "test"
    gives the graph of the condition, "sum" that of the body. It adds `go/While` with both, and `exit` becomes an alias
    of `go/While:0`, which `resolve` follows. Nothing is removed here; `flatten` prunes dead nodes.

    `inside_first` is the order: a loop comes after all that its condition and its body hold, a branch after all that its sides
    hold. So `loop` and `branch` find only If and While nodes between their borders.
    """

    def __init__(self, nodes: dict[str, Node], effects: list[str]) -> None:
        self.nodes = nodes
        self.effects = effects
        self._alias: dict[tuple[str, int], str] = {}  # an output of a node that is replaced -> what replaces it
        self._dead: set[tuple[str, int]] = set()

    # -- references -------------------------------------------------------------------------------------------------------

    def output(self, reference: str) -> tuple[str, int]:
        """The node and output index of `reference`; "s:output_true:0" and "s:1" are the same."""
        name, _, rest = reference.partition(":")
        argument, _, index = rest.rpartition(":")
        if argument in _PORTS and name in self.nodes and kind(self.nodes[name]) in OPS:
            return name, _PORTS[argument]
        return name, int(index or 0)

    def resolve(self, reference: str) -> str:
        """`reference` after the replacements so far."""
        while (found := self._alias.get(self.output(reference))) is not None:
            reference = found
        return reference

    def inputs(self, node: Node) -> tuple[str, ...]:
        return tuple(self.resolve(ref) for ref in node.inputs if not ref.startswith("^"))

    def controls(self, node: Node) -> Iterator[str]:
        return (ref[1:] for ref in node.inputs if ref.startswith("^"))

    # -- constant predicates
    # ----------------------------------------------------------------------------------------------

    def settle_constant_branches(self) -> None:
        """A Switch on a constant (dropout under a training flag) passes its value to one side; the other side is
        dead."""
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
        """The dead nodes: those with a dead operand, and a Merge with only dead operands."""
        dead: set[str] = set()
        changed = True
        while changed:
            changed = False
            for node in reversed(self.nodes.values()):  # operands mostly come after their users
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

    # -- the order --------------------------------------------------------------------------------------------------------

    def inside_first(self) -> Iterator[Node]:
        """All nodes in topological order of `_before`: depth first, each after what must be replaced before it."""
        nodes, found = dict(self.nodes), set[str]()
        joins: dict[str, list[Node]] = {}
        for node in nodes.values():
            if self.is_join(node):
                joins.setdefault(_scope(node), []).append(node)
        for root in nodes:
            pending = [(root, False)]
            while pending:
                name, ready = pending.pop()
                if ready:
                    yield nodes[name]
                elif name in nodes and name not in found:
                    found.add(name)
                    pending.append((name, True))
                    pending += [(above, False) for above in self._before(nodes[name], joins)]

    def _before(self, node: Node, joins: Mapping[str, list[Node]]) -> list[str]:
        """The nodes that come before `node`: what it reads, but never around a loop, whose variables are its border.

        A loop is replaced at its LoopCond, which comes after the loop's body, and before the Exits. A branch is replaced with all the
        Merges of its tf.cond, so it comes after what any of them reads (`joins`: those of a scope).
        """
        if kind(node) == "Exit":
            return [self._loop_of(node)]
        if kind(node) == "LoopCond":
            loop = self._loop(node.name)
            read = [node.inputs[0], *(variable.following for variable in loop.variables)]
            return [*map(node_of, read), *self._effects_within({*loop.merge_of, *loop.merge_of.values()})]
        if self._in_loop(node) or self._loop_condition(node):
            return []
        readers = joins.get(_scope(node), []) if self.is_join(node) else [node]
        return [node_of(ref.removeprefix("^")) for reader in readers for ref in reader.inputs]

    def is_join(self, node: Node) -> bool:
        """Whether `node` is the Merge of a branch that is not replaced yet."""
        return kind(node) == "Merge" and (node.name, 0) not in self._alias and not self._in_loop(node)

    # -- cutting out ------------------------------------------------------------------------------------------------------

    def cut(self, outputs: Mapping[str, str], boundary: _Boundary, effects: Iterable[str] = ()) -> _Cut:
        """Everything upstream of `outputs` and `effects` up to a boundary.

        `boundary(node, output)` returns the outer reference that an output of a node represents, None inside.
        """
        operands: dict[str, str] = {}
        specs: list[TensorSpec] = []
        named: dict[tuple[str, int], str] = {}
        ordered: dict[str, Node] = {}
        begun: set[str] = set()

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
                refs = [place(ref) for ref in self.inputs(node)]
                if ready:
                    ordered[name] = replace(node, inputs=tuple(refs))
                elif name in begun:
                    _corrupt(node, "reads its own result, outside of any loop")
                else:
                    begun.add(name)
                    pending.append((name, True))
                    pending += [(node_of(ref), False) for ref in refs if ref not in operands]

        placed = {name: place(ref) for name, ref in outputs.items()}
        for name in (*map(node_of, placed.values()), *effects):
            visit(name)
        graph = Graph(tuple(specs), tuple(ordered.values()), placed)
        return _Cut(graph, operands)

    # -- loops ------------------------------------------------------------------------------------------------------------

    def _loop_of(self, leaving: Node) -> str:
        switch = self.nodes[node_of(leaving.inputs[0])]
        return self._loop_condition(switch) or _corrupt(leaving, "leaves no loop")

    def _loop_condition(self, switch: Node) -> str | None:
        above = self.nodes.get(node_of(switch.inputs[1])) if kind(switch) == "Switch" else None
        return above.name if above is not None and kind(above) == "LoopCond" else None

    def _in_loop(self, merge: Node) -> bool:
        """True for the Merge with which a loop's variable begins."""
        if kind(merge) != "Merge":
            return False
        above = [self.nodes.get(node_of(ref)) for ref in merge.inputs if not ref.startswith("^")]
        return any(node is not None and kind(node) == "NextIteration" for node in above)

    def _loop(self, condition: str) -> _Loop:
        """The loop of a LoopCond, before it is replaced."""
        switches = [node for node in self.nodes.values() if self._loop_condition(node) == condition]
        merge_of = {switch.name: node_of(switch.inputs[0]) for switch in switches}
        variables: list[_Variable] = []
        for merge in dict.fromkeys(merge_of.values()):
            node = self.nodes[merge]
            above = {kind(found): found for ref in node.inputs if (found := self.nodes.get(node_of(ref))) is not None}
            if not above.keys() >= {"Enter", "NextIteration"}:
                _corrupt(node, "begins no loop: it does not join an Enter with a NextIteration")
            variables.append(_Variable(merge, above["Enter"].name, above["NextIteration"].inputs[0]))
        return _Loop(variables, merge_of)

    def loop(self, condition: str) -> None:
        """Replaces the loop of one LoopCond by a While node. Its operands: the variables, then what the loop only reads."""
        name = f"{condition}/While"
        variables, by_switch = self._loop(condition)
        merges = {variable.merge for variable in variables}
        borders = frozenset({*merges, *by_switch})

        def boundary(node: Node, output: int) -> str | None:
            if node.name in merges:
                return f"{node.name}:0"
            if node.name in by_switch:
                return f"{by_switch[node.name]}:0"
            return f"{node.name}:0" if kind(node) == "Enter" else None

        own = self._effects_within(borders)
        inside = self.guarded(own, borders, boundary)
        test = self.cut({"output": self.nodes[condition].inputs[0]}, boundary)
        body = self.cut({merge: following for merge, _, following in variables}, boundary, inside)
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

    def _effects_within(self, borders: Set[str]) -> list[str]:
        """The effects that depend on what happens between `borders`, a loop's Merges and Switches; behind its Exits they do not."""
        found: list[str] = []
        for effect in self.effects:
            pending, seen = [effect], set[str]()
            while pending:
                name = pending.pop()
                if name in borders:
                    found.append(effect)
                    break
                node = self.nodes.get(name)
                if node is None or name in seen or (kind(node) == "Exit" and node_of(node.inputs[0]) in borders):
                    continue
                seen.add(name)
                pending += map(node_of, self.inputs(node))
        return found

    # -- branches ---------------------------------------------------------------------------------------------------------

    def guarded(
        self, effects: list[str], borders: frozenset[str] = frozenset(), boundary: _Boundary = lambda node, output: None
    ) -> list[str]:
        """`effects`, those under a branch as If nodes of their own. `borders`, `boundary`: where the loop around them begins."""
        for _ in range(64):  # as deep as branches may nest
            guards = [self._guard(effect, borders) for effect in effects]
            if not any(guards):
                break
            pairs = zip(effects, guards, strict=True)
            effects = [self._guarded(effect, *guard, boundary) if guard else effect for effect, guard in pairs]
        return effects

    def branch(self, merge: Node) -> None:
        """Replaces a Merge, and all others of the same tf.cond, by one If node."""
        predicate = self._sides(merge)[0]
        together: list[tuple[Node, str, str]] = []
        for node in list(self.nodes.values()):
            if self.is_join(node) and _scope(node) == _scope(merge):
                found, otherwise, then = self._sides(node)
                if found == predicate:
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
        """The predicate of a Merge, and its operands for false and true."""
        data = [ref for ref in merge.inputs if not ref.startswith("^")]
        if len(data) != 2:
            _corrupt(merge, f"joins {len(data)} values; only those of tf.cond, which joins two, are supported")
        found = [self._origin(ref) for ref in data]
        known = next((item for item in found if item), None) or _corrupt(merge, "joins values that come from no Switch")
        predicate, side = known
        if found[0] is None or found[0] != known:
            side = not side  # `known` belongs to the second operand
        refs = [self.resolve(ref) for ref in data]
        return (predicate, refs[1], refs[0]) if side else (predicate, refs[0], refs[1])

    def _origin(self, reference: str) -> tuple[str, bool] | None:
        """The predicate and side of the Switch that a value comes from, by data or, for a constant, by control."""
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
            pending += self.inputs(node)
            controls += self.controls(node)
        return None

    def _predicate(self, reference: str) -> str:
        """A predicate without Identity nodes, so that equal ones compare equal."""
        reference = self.resolve(reference)
        while (node := self.nodes.get(node_of(reference))) is not None and node.op == "Identity":
            reference = self.resolve(node.inputs[0])
        return reference

    def _guard(self, effect: str, borders: frozenset[str]) -> tuple[str, bool] | None:
        """The predicate and the side under which an effect runs; None where it always does."""
        data = [origin for ref in self.inputs(self.nodes[effect]) if (origin := self._origin_by_data(ref, borders))]
        return data[0] if data else None

    def _origin_by_data(self, reference: str, borders: frozenset[str]) -> tuple[str, bool] | None:
        pending, seen = [reference], set(borders)
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

    def _guarded(self, effect: str, predicate: str, side: bool, boundary: _Boundary) -> str:
        """An effect of one branch as an If node whose other branch is empty."""
        part = self.cut(
            {}, lambda node, output: self._switch_boundary(node, output) or boundary(node, output), [effect]
        )
        operands = list(_reversed(part.operands))
        full = _with_inputs(part, operands, {})
        empty = Graph(full.inputs, (), {})
        name = f"{effect}/If"
        attrs = {"then_branch": full if side else empty, "else_branch": empty if side else full}
        self.nodes[name] = Node(name, "If", (predicate, *operands), attrs)
        return name


def _scope(node: Node) -> str:
    return node.name.rpartition("/")[0]


def _reversed(operands: Mapping[str, str]) -> dict[str, None]:
    return dict.fromkeys(operands.values())


def _with_inputs(part: _Cut, operands: list[str], outputs: Mapping[str, str], *, pass_on: int | None = None) -> Graph:
    """A graph with one input per operand. `pass_on`: operands from this index on are also its last outputs."""
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
