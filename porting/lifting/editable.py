"""A graph under editing: its nodes in topological order, their users, and inferred specs of their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from porting.conversion.emitter import Emitter
from porting.conversion.values import Value
from torch_towers.graph.effects import has_effect
from torch_towers.graph.graph import Graph, ModuleSpec, Node, Size, node_of, references
from torch_towers.graph.names import numbered

Shape = tuple[Any, ...]


class EditableGraph:
    """Nodes are replaced one by one; a node keeps its name and position, so references to it stay valid.

    Nodes that an edit makes dead stay until `sweep`, so that the rewrite may still look at them.
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
        """The producer of `ref`; None for graph inputs and literals."""
        return self.nodes.get(node_of(ref)) if isinstance(ref, str) else None

    def shape(self, ref: Any) -> Shape | None:
        """The inferred shape of `ref`: integers and named sizes."""
        value = self.known.get(ref) if isinstance(ref, str) else None
        return () if not isinstance(ref, str) else None if value is None else value.shape

    def rank(self, ref: Any) -> int | None:
        shape = self.shape(ref)
        return None if shape is None else len(shape)

    def dtype(self, ref: Any) -> str | None:
        value = self.known.get(ref) if isinstance(ref, str) else None
        return None if value is None else value.dtype

    def are_sizes(self, sizes: Sequence[Any], x: str) -> bool:
        """Whether `sizes` are those of `x`, each as a number or as a node that reads it."""
        shape = self.shape(x)
        return (
            shape is not None
            and len(shape) == len(sizes)
            and all(self.is_size(size, x, axis) for axis, size in enumerate(sizes))
        )

    def is_size(self, size: Any, x: str, axis: int) -> bool:
        """Whether `size` is that of `x` along `axis`: a number, or a node that reads it or an equal one."""
        node, shape = self.node(size), self.shape(x) or ()
        known = shape[axis] if axis < len(shape) else None
        if node is None or node.op != "size":
            return isinstance(size, int) and size == known
        of, at = str(node.inputs[0]), int(node.attrs["axis"])
        other = (self.shape(of) or ())[at:][:1]
        return (of == x and at == axis) or (known is not None and other == (known,))

    def consumers(self, ref: str) -> list[Node]:
        """The nodes that read a result of `ref`'s node."""
        return [self.nodes[name] for name in self.users.get(node_of(ref), ())]

    def is_output(self, ref: str) -> bool:
        return node_of(ref) in self._output_nodes

    def called_modules(self) -> set[str]:
        """The modules that nodes call."""
        return {str(node.attrs["module"]) for node in self.nodes.values() if node.op == "module"}

    def graph(self) -> Graph:
        """The current graph, with the modules that it calls."""
        called = self.called_modules()
        modules = {name: spec for name, spec in sorted(self.modules.items()) if name in called}
        return Graph(self.inputs, tuple(self.nodes.values()), self.outputs, modules)

    # -- writing ------------------------------------------------------------------------------------------------------

    def rewrite(self, root: Node, op: str, *inputs: Any, **attrs: Any) -> None:
        """Replaces the node `root` by a call of `op`."""
        before = self.nodes[root.name].inputs
        for ref in references(before):
            self._unuse(node_of(ref), root.name)
        node = self.nodes[root.name] = Node(root.name, op, inputs, attrs)
        self._use(node)
        self._touched += [node_of(ref) for ref in references(before)]

    def before(self, root: Node, op: str, *inputs: Any, known: tuple[str | None, Any], **attrs: Any) -> str:
        """Inserts a node before `root`, with the spec `known`. Returns its name."""
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
        """Moves the computation of `root` to a new node before it, with the spec `known`; `root` becomes `op` of
        that."""
        now = self.nodes[root.name]
        moved = self.before(root, now.op, *now.inputs, known=known, **now.attrs)
        self.rewrite(now, op, moved, **attrs)

    def alias(self, root: Node, ref: Any) -> None:
        """Redirects all users of `root` to `ref`, a reference or a literal."""
        new = {root.name: ref}
        for user in self.consumers(root.name):
            self._exchange(user, renamed(user.inputs, new))
        self.outputs = {name: renamed_ref(old, new) for name, old in self.outputs.items()}
        self._output_nodes = {node_of(old) for old in self.outputs.values()}
        self._touched.append(root.name)

    def remove(self, root: Node) -> None:
        """Removes a node without results, such as a check."""
        for ref in references(self.nodes.pop(root.name).inputs):
            self._unuse(node_of(ref), root.name)
            self._touched.append(node_of(ref))

    def redirect(self, root: Node, refs: Mapping[str, str]) -> None:
        """Redirects all users of `root`'s results from the references in `refs` to their replacements."""
        for user in self.consumers(root.name):
            self._exchange(user, exchanged(user.inputs, refs))
        self.outputs = {name: refs.get(ref, ref) for name, ref in self.outputs.items()}
        self._output_nodes = {node_of(ref) for ref in self.outputs.values()}

    def _exchange(self, user: Node, inputs: tuple[Any, ...]) -> None:
        """Gives a node other operands."""
        for old in references(user.inputs):
            self._unuse(node_of(old), user.name)
        self.nodes[user.name] = replace(user, inputs=inputs)
        self._use(self.nodes[user.name])

    def sort(self) -> None:
        """Moves each node behind its operands, and no further than needed."""
        placed: dict[str, Node] = {}
        pending = list(reversed(self.nodes))
        while pending:
            node = self.nodes[pending[-1]]
            missing = [
                name for ref in references(node.inputs) if (name := node_of(ref)) in self.nodes and name not in placed
            ]
            if missing:
                pending += missing
            else:
                placed.setdefault(pending.pop(), node)
        self.nodes = placed

    def sweep(self) -> None:
        """Removes dead nodes, upstream from the old operands of the last edits."""
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

    # -- inferred specs -----------------------------------------------------------------------------------------------

    def know(self, root: Node, dtype: str | None, shape: Shape | None) -> None:
        """Sets the dtype and shape of `root`, and of what follows, if the rewrite knows more than was inferred."""
        if not self._tell(root.name, dtype, shape):
            return
        emitter, told = Emitter(()), {root.name}
        for name, node in self.nodes.items():
            if told.isdisjoint(map(node_of, references(node.inputs))):
                continue
            specs = emitter.infer(node, self.known)
            for i, spec in enumerate(specs):
                if self._tell(f"{name}:{i}" if len(specs) > 1 else name, *spec):
                    told.add(name)

    def _tell(self, ref: str, dtype: str | None, shape: Shape | None) -> bool:
        """Sets the dtype and shape of `ref` if one of them was not known."""
        old = self.known.get(ref)
        if old is not None and old.dtype is not None and old.shape is not None:
            return False
        self.known[ref] = Value(ref, dtype, shape)
        return True

    def learn(self, root: Node, specs: Mapping[str, tuple[str | None, Shape]]) -> None:
        """Replaces the specs of `root`'s results, now that it is a layer."""
        self.known = {ref: value for ref, value in self.known.items() if node_of(ref) != root.name}
        self.known |= {ref: Value(ref, *spec) for ref, spec in specs.items()}

    def settle(self, ref: str, shape: Shape) -> None:
        """Refines the shape of `ref` to `shape`: equal sizes get the same names, also downstream."""
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
        """Renames the own size names of `ref` to those in `shape` everywhere."""
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
    """`operands` with renamed nodes; result indices stay: "split:1" becomes "new:1"."""
    if isinstance(operands, tuple):
        return tuple(renamed(operand, new) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return renamed_ref(operands, new) if isinstance(operands, str) else operands


def renamed_ref(ref: str, new: Mapping[str, Any]) -> Any:
    """`renamed` for one reference."""
    name, colon, index = ref.partition(":")
    return f"{new.get(name, name)}:{index}" if colon else new.get(name, name)


def exchanged(operands: Any, new: Mapping[str, str]) -> Any:
    """`operands` with whole references replaced: "split:1" may change while "split:0" stays."""
    if isinstance(operands, tuple):
        return tuple(exchanged(operand, new) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return new.get(operands, operands) if isinstance(operands, str) else operands
