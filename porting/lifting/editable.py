"""A graph while it is edited: its nodes in topological order, who uses them, and what is known of their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from porting.conversion.effects import has_effect
from porting.conversion.emitter import Emitter
from porting.conversion.values import Value
from porting.names import numbered
from torch_towers.graph.graph import Graph, ModuleSpec, Node, Size, node_of, references

Shape = tuple[Any, ...]


class EditableGraph:
    """Single nodes are replaced; a node keeps its name and its place, so that references to it stay true.

    What an edit no longer needs stays until `sweep`, so that a rewrite may still look at it.
    """

    def __init__(self, graph: Graph, known: Mapping[str, Value]) -> None:
        self.inputs = graph.inputs
        self.outputs = dict(graph.outputs)
        self.nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
        self.modules: dict[str, ModuleSpec] = dict(graph.modules)
        self.known: dict[str, Value] = dict(known)
        self.users: dict[str, Counter[str]] = {}
        for node in graph.nodes:
            self._use(node)
        self._output_nodes = {node_of(ref) for ref in self.outputs.values()}
        self._touched: list[str] = []

    # -- reading ------------------------------------------------------------------------------------------------------

    def node(self, ref: Any) -> Node | None:
        """The node that computes `ref`; None for the graph's inputs and for literals."""
        return self.nodes.get(node_of(ref)) if isinstance(ref, str) else None

    def shape(self, ref: Any) -> Shape | None:
        """The shape of `ref` as far as it is known: integers and named sizes."""
        value = self.known.get(ref) if isinstance(ref, str) else None
        return () if not isinstance(ref, str) else None if value is None else value.shape

    def rank(self, ref: Any) -> int | None:
        shape = self.shape(ref)
        return None if shape is None else len(shape)

    def dtype(self, ref: Any) -> str | None:
        value = self.known.get(ref) if isinstance(ref, str) else None
        return None if value is None else value.dtype

    def consumers(self, ref: str) -> list[Node]:
        """The nodes that take `ref`'s node as an operand."""
        return [self.nodes[name] for name in self.users.get(node_of(ref), ())]

    def is_output(self, ref: str) -> bool:
        return node_of(ref) in self._output_nodes

    def called_modules(self) -> set[str]:
        """The modules that nodes call."""
        return {str(node.attrs["module"]) for node in self.nodes.values() if node.op == "module"}

    def graph(self) -> Graph:
        """The graph as it now is, with the modules that it calls."""
        called = self.called_modules()
        modules = {name: spec for name, spec in sorted(self.modules.items()) if name in called}
        return Graph(self.inputs, tuple(self.nodes.values()), self.outputs, modules)

    # -- writing ------------------------------------------------------------------------------------------------------

    def rewrite(self, root: Node, op: str, *inputs: Any, **attrs: Any) -> None:
        """The node `root` computes `op` from now on."""
        before = self.nodes[root.name].inputs
        for ref in references(before):
            self._unuse(node_of(ref), root.name)
        node = self.nodes[root.name] = Node(root.name, op, inputs, attrs)
        self._use(node)
        self._touched += [node_of(ref) for ref in references(before)]

    def before(self, root: Node, op: str, *inputs: Any, known: tuple[str | None, Any], **attrs: Any) -> str:
        """Writes a node in front of `root`, of which dtype and shape are `known`. Gives its name."""
        scope = root.name.rpartition(".")[0]
        wanted = f"{scope}.{op}" if scope else op
        name = numbered(wanted, lambda name: name in self.nodes or name in {spec.name for spec in self.inputs})
        node = Node(name, op, inputs, attrs)
        nodes = list(self.nodes.items())
        at = next(place for place, (other, _) in enumerate(nodes) if other == root.name)
        self.nodes = dict([*nodes[:at], (name, node), *nodes[at:]])
        self._use(node)
        self.known[name] = Value(name, *known)
        return name

    def then(self, root: Node, op: str, *, known: tuple[str | None, Any], **attrs: Any) -> None:
        """What `root` computes becomes a node in front of it, of which dtype and shape are `known`; `root` is `op` of that."""
        now = self.nodes[root.name]
        moved = self.before(root, now.op, *now.inputs, known=known, **now.attrs)
        self.rewrite(now, op, moved, **attrs)

    def alias(self, root: Node, ref: Any) -> None:
        """Everything that used `root` uses `ref`, a reference or a literal, from now on."""
        new = {root.name: ref}
        for user in self.consumers(root.name):
            inputs = renamed(user.inputs, new)
            for old in references(user.inputs):
                self._unuse(node_of(old), user.name)
            self.nodes[user.name] = replace(user, inputs=inputs)
            self._use(self.nodes[user.name])
        self.outputs = {name: renamed_ref(old, new) for name, old in self.outputs.items()}
        self._output_nodes = {node_of(old) for old in self.outputs.values()}
        self._touched.append(root.name)

    def redirect(self, root: Node, refs: Mapping[str, str]) -> None:
        """Everything that used one of `root`'s results by the references in `refs` uses it by the others from now on."""
        for user in self.consumers(root.name):
            inputs = exchanged(user.inputs, refs)
            self.nodes[user.name] = replace(user, inputs=inputs)
        self.outputs = {name: refs.get(ref, ref) for name, ref in self.outputs.items()}

    def sweep(self) -> None:
        """Takes out the nodes that nothing uses any more, upstream from the old operands of the last edits."""
        pending, self._touched = self._touched, []
        while pending:
            name = pending.pop()
            node = self.nodes.get(name)
            if node is None or self.users.get(name) or name in self._output_nodes or has_effect(node):
                continue
            del self.nodes[name]
            for ref in references(node.inputs):
                self._unuse(node_of(ref), name)
                pending.append(node_of(ref))

    def _use(self, node: Node) -> None:
        for ref in references(node.inputs):
            self.users.setdefault(node_of(ref), Counter())[node.name] += 1

    def _unuse(self, name: str, user: str) -> None:
        users = self.users.get(name, Counter[str]())
        users[user] -= 1
        if users[user] <= 0:
            del users[user]

    # -- what is known ------------------------------------------------------------------------------------------------

    def know(self, root: Node, dtype: str | None, shape: Shape | None) -> None:
        """The dtype and shape of `root`, where the rewrite knows more than was known of the ops."""
        old = self.known.get(root.name)
        if old is None or old.dtype is None or old.shape is None:
            self.known[root.name] = Value(root.name, dtype, shape)

    def learn(self, root: Node, specs: Mapping[str, tuple[str | None, Shape]]) -> None:
        """The dtypes and shapes of `root`'s results, in place of what was known before it was a layer."""
        self.known = {ref: value for ref, value in self.known.items() if node_of(ref) != root.name}
        self.known |= {ref: Value(ref, *spec) for ref, spec in specs.items()}

    def settle(self, ref: str, shape: Shape) -> None:
        """`shape` is that of `ref`, of which less was known: the same sizes get the same names, there and downstream."""
        self._same(ref, shape)
        emitter = Emitter(())
        changed = {node_of(ref)}
        for name, node in self.nodes.items():
            if changed.isdisjoint(map(node_of, references(node.inputs))):
                continue
            changed.add(name)
            specs = emitter.infer(node, self.known)
            for i, (_, found) in enumerate(specs):
                self._same(f"{name}:{i}" if len(specs) > 1 else name, found)

    def _same(self, ref: str, shape: Shape | None) -> None:
        """Sizes of `ref` that had names of their own are called as in `shape` everywhere."""
        old = self.shape(ref)
        if old is None or shape is None or len(old) != len(shape):
            return
        pairs = zip(old, shape, strict=True)
        new: dict[Any, Size] = {a: b for a, b in pairs if isinstance(a, str) and b is not None and a != b}
        if not new:
            return
        for each, value in self.known.items():
            if value.shape is not None and not new.keys().isdisjoint(value.shape):
                self.known[each] = replace(value, shape=tuple(new.get(size, size) for size in value.shape))


def renamed(operands: Any, new: Mapping[str, Any]) -> Any:
    """`operands` where nodes have other names; a node's results keep their numbers: "split:1" is "new:1"."""
    if isinstance(operands, tuple):
        return tuple(renamed(operand, new) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return renamed_ref(operands, new) if isinstance(operands, str) else operands


def renamed_ref(ref: str, new: Mapping[str, Any]) -> Any:
    """One reference of `renamed`."""
    name, colon, index = ref.partition(":")
    return f"{new.get(name, name)}:{index}" if colon else new.get(name, name)


def exchanged(operands: Any, new: Mapping[str, str]) -> Any:
    """`operands` with whole references exchanged: "split:1" for another, and "split:0" as it was."""
    if isinstance(operands, tuple):
        return tuple(exchanged(operand, new) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return new.get(operands, operands) if isinstance(operands, str) else operands
