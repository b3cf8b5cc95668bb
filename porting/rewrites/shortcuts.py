"""Shortcuts: branches that leave out work where no row, or each, has ended, as `static_rnn` of TensorFlow 1 writes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from porting.conversion.emitter import Emitter
from porting.lifting.editable import renamed
from porting.lifting.patterns import Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Graph, Node, node_of, references


@rewrite("", Apply("cond"), forward=True)
def shortcut(view: View, root: Node, match: Match) -> None:
    """`cond(max(lengths) <= step, old, where(lengths <= step, old, new))` and
    `cond(min(lengths) > step, new, where(lengths <= step, old, new))` are `where(lengths > step, new, old)`."""
    opened = _Opened(view, dict(view.nodes))
    read = {ref for user in view.consumers(root.name) for ref in references(user.inputs)} | set(view.outputs.values())
    results = {f"{root.name}:{i}": ref for i, ref in enumerate(opened.results(root))}
    refs = {result: ref for result, ref in results.items() if result in read}
    new: dict[str, Any] = {}
    for name in opened.needed(refs.values()):
        node = opened.nodes[name]
        new[name] = _written(view, root, Node(name, node.op, renamed(node.inputs, new), node.attrs))
    view.redirect(root, {result: renamed((ref,), new)[0] for result, ref in refs.items()})
    view.alias(root, root.name)


@dataclass
class _Opened:
    """The nodes of a graph, and those of the branches that are `added` to it."""

    view: View
    nodes: dict[str, Node]
    added: list[str] = field(default_factory=list[str])

    def results(self, root: Node) -> list[Any]:
        """What a shortcut gives, without it."""
        lengths, step, ended = self._ends(root)
        results: list[Any] = []
        short = self._inside(root, "then_branch")
        for known, ref in zip(short, self._inside(root, "else_branch"), strict=True):
            where = self._node(ref)
            if where is None or where.op != "where" or known != where.inputs[2 if ended else 1]:
                raise Refusal("its branches do not agree where no row has ended, or each")
            if not self._goes_on(where.inputs[0], lengths, step):
                raise Refusal("its rows do not end with its shortcut")
            results.append(ref)
        return results

    def _ends(self, root: Node) -> tuple[Any, Any, bool]:
        """The lengths and the step of a shortcut, and whether it is taken if all rows have ended, or if none has."""
        test = self._node(root.inputs[0])
        for op, extreme in (("less_equal", "reduce_max"), ("greater", "reduce_min")):
            if test is not None and test.op == op:
                of = self._node(test.inputs[0])
                if of is not None and of.op == extreme and self.view.rank(of.inputs[0]) == 1:
                    return of.inputs[0], test.inputs[1], op == "less_equal"
        raise Refusal("it does not depend on the largest or smallest of some lengths")

    def _goes_on(self, condition: Any, lengths: Any, step: Any) -> bool:
        """Whether `condition [n, 1]` is `lengths > step`."""
        added = self._node(condition)
        test = self._node(added.inputs[0]) if added is not None and added.op == "unsqueeze" else None
        return test is not None and test.op == "greater" and test.inputs == (lengths, step)

    def _node(self, ref: Any) -> Node | None:
        return self.nodes.get(node_of(ref)) if isinstance(ref, str) else None

    def _inside(self, root: Node, branch: str) -> list[Any]:
        """Adds the nodes of a branch; returns the references of its results."""
        graph: Graph = root.attrs[branch]
        new: dict[str, Any] = dict(zip((spec.name for spec in graph.inputs), root.inputs[1:], strict=True))
        results: dict[str, Any] = {}
        for node in graph.nodes:
            name = f"{root.name}/{branch}/{node.name}"
            inner = Node(name, node.op, _exchanged(renamed(node.inputs, new), results), node.attrs)
            new[node.name] = name
            if node.op == "cond":
                results |= {f"{name}:{i}": ref for i, ref in enumerate(self.results(inner))}
            else:
                self._add(self._turned(inner))
        return [_exchanged(renamed((ref,), new), results)[0] for ref in graph.outputs.values()]

    def _turned(self, node: Node) -> Node:
        """`where(lengths <= step, old, new)` as `where(lengths > step, new, old)`."""
        added = self._node(node.inputs[0]) if node.op == "where" else None
        if added is None or added.op != "unsqueeze" or added.attrs["axis"] not in (1, -1):
            return node
        test = self._node(added.inputs[0])
        if test is None or test.op != "less_equal" or self.view.dtype(test.inputs[0]) not in ("int32", "int64"):
            return node
        on = self._add(Node(f"{added.name}/on", "greater", test.inputs, {}))
        column = self._add(Node(f"{added.name}/column", "unsqueeze", (on,), {"axis": -1}))
        return Node(node.name, "where", (column, node.inputs[2], node.inputs[1]), node.attrs)

    def _add(self, node: Node) -> str:
        if node.name not in self.nodes:
            self.nodes[node.name] = node
            self.added.append(node.name)
        return node.name

    def needed(self, refs: Iterable[Any]) -> list[str]:
        """The added nodes that `refs` depend on, operands first."""
        needed = {node_of(ref) for ref in references(tuple(refs))}
        for name in reversed(self.added):
            if name in needed:
                needed |= {node_of(ref) for ref in references(self.nodes[name].inputs)}
        return [name for name in self.added if name in needed]


def _exchanged(operands: tuple[Any, ...], new: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(new.get(ref, ref) if isinstance(ref, str) else ref for ref in operands)


def _written(view: View, root: Node, node: Node) -> str:
    """Writes a node before `root`; returns its name."""
    name = view.before(root, node.op, *node.inputs, known=(None, None), **node.attrs)
    if node.op == "where":  # the rows of the lengths are those of what they end
        specs: list[tuple[Any, Any]] = [(view.dtype(node.inputs[1]), view.shape(node.inputs[1]))]
    else:
        specs = Emitter(()).infer(view.nodes[name], view.known)
    refs = [f"{name}:{i}" if len(specs) > 1 else name for i in range(len(specs))]
    view.learn(view.nodes[name], dict(zip(refs, specs, strict=True)))
    return name
