"""What a graph does with every step of a sequence, one by one, is done once with all of them: TimeDistributed of Keras 3."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from porting.lifting.patterns import SOURCES, Apply, Match, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.steps import replace_stack, sequence_of
from porting.lifting.view import View
from torch_towers.graph.elementwise import ELEMENTWISE
from torch_towers.graph.graph import Node

OF_LAST_AXIS = frozenset({"Linear", "LayerNorm", "ShiftedLayerNorm", "RMSNorm", "OffsetRMSNorm", "Embedding"})
"""Layers that take any number of axes before the last one."""

OF_ROWS = frozenset(
    """Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d BatchNorm MaxPool1d MaxPool2d MaxPool3d
    AvgPool1d AvgPool2d AvgPool3d GlobalAveragePooling GlobalMaxPooling ZeroPadding Upsample""".split()  # noqa: SIM905
)
"""Layers that take rows `[n, ...]`, each by itself."""

OF_SEQUENCES = frozenset({"GRU", "LSTM", "SimpleRNN", "ConcatGRU"})
"""Layers that take rows, their masks and first states, each by itself."""

_BY_ROW = OF_ROWS | OF_SEQUENCES

OF_AXES = frozenset({"concat", "reduce_max", "reduce_mean", "reduce_min", "reduce_sum"})
"""Ops of one or several axes."""


@rewrite("", Apply("stack"))
def all_steps_at_once(view: View, root: Node, match: Match) -> None:
    """The stack of what equal nodes make of each step of a sequence: those nodes once, on the sequence, or, where they
    take rows, on the steps of all rows as one batch."""
    if len(root.inputs) < 2 or root.attrs["axis"] not in (0, 1):
        raise Refusal("it does not stack steps")
    steps = _Steps(view, root, len(root.inputs))
    made = steps.made(root.inputs)
    for items in made:
        steps.write(items)
    replace_stack(view, root, steps.whole(steps.value(root.inputs)))


@dataclass(frozen=True)
class _Value:
    """What equal nodes make of all steps: `[n, length, ...]`, or with `flat`, `[n * length, ...]`."""

    ref: Any
    flat: bool = False


@dataclass
class _Steps:
    """Values of each step, `items`, as values of all steps; new nodes are written before `root`."""

    view: View
    root: Node
    length: int
    values: dict[tuple[Any, ...], _Value] = field(default_factory=dict[tuple[Any, ...], _Value])
    flats: dict[Any, str] = field(default_factory=dict[Any, str])

    def made(self, items: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """The values that equal nodes make of each step, operands first. Refuses nodes that differ, or mix rows."""
        found: dict[tuple[Any, ...], None] = {}
        pending = [items]
        while pending:
            items = pending.pop()
            if items in found or _is_shared(self.view, items) or sequence_of(self.view, items) is not None:
                continue
            nodes = [node for item in items if (node := self.view.node(item)) is not None and node.name == item]
            laws = [_law(self.view, node) for node in nodes]
            if len(nodes) < self.length or laws[0] is None or any(law != laws[0] for law in laws):
                raise Refusal("its steps are not made by equal nodes")
            shapes = {self.view.shape(item) for item in items}
            shape = shapes.pop()
            if shapes or shape is None or not all(isinstance(size, int) for size in shape[1:]):
                raise Refusal("its steps are not known to be of one size")
            found[items] = None
            pending += zip(*(node.inputs for node in nodes), strict=True)
        places = {name: place for place, name in enumerate(self.view.nodes)}
        return sorted(found, key=lambda items: places[items[0]])

    def value(self, items: tuple[Any, ...]) -> _Value:
        if items in self.values or _is_shared(self.view, items):
            return self.values.get(items, _Value(items[0]))
        source, backwards = sequence_of(self.view, items) or ("", False)
        ref = self._before("flip", source, like=source, axes=(1,)) if backwards else source
        return self.values.setdefault(items, _Value(ref))

    def write(self, items: tuple[Any, ...]) -> None:
        """Writes the node that makes the values of all steps."""
        node = self.view.nodes[items[0]]
        operands = [self.value(each) for each in zip(*(self.view.nodes[item].inputs for item in items), strict=True)]
        spec = self.view.modules[str(node.attrs["module"])] if node.op == "module" else None
        flat = any(operand.flat for operand in operands) or (spec is not None and spec.type in _BY_ROW)
        inputs = [self._flat(operand) if flat else operand.ref for operand in operands]
        attrs = {**node.attrs, **_axes(self.view, node)}
        shape = (self.view.shape(node.name) or ())[1:]
        known = (None, *shape) if flat else (*self._rows(), *shape)
        ref = self.view.before(self.root, node.op, *inputs, known=(self.view.dtype(node.name), known), **attrs)
        if node.name in self.view.lifted:
            self.view.lifted[ref] = self.view.lifted[node.name]
        self.values[items] = _Value(ref, flat)

    def whole(self, value: _Value) -> str:
        """The value as `[n, length, ...]`."""
        if not value.flat:
            return str(value.ref)
        shape = (self.view.shape(value.ref) or ())[1:]
        known = self.view.dtype(value.ref), (*self._rows(), *shape)
        return self.view.before(self.root, "reshape", value.ref, -1, self.length, *shape, known=known)

    def _flat(self, value: _Value) -> Any:
        """The value as `[n * length, ...]`; one that all steps share stays."""
        shape = self.view.shape(value.ref)
        if value.flat or shape is None or len(shape) < 2:
            return value.ref
        if value.ref not in self.flats:
            known = self.view.dtype(value.ref), (None, *shape[2:])
            self.flats[value.ref] = self.view.before(self.root, "reshape", value.ref, -1, *shape[2:], known=known)
        return self.flats[value.ref]

    def _rows(self) -> tuple[Any, Any]:
        shape = self.view.shape(self.root.name) or (None, None)
        return shape[1 - self.root.attrs["axis"]], self.length

    def _before(self, op: str, *inputs: Any, like: str, **attrs: Any) -> str:
        known = self.view.dtype(like), self.view.shape(like)
        return self.view.before(self.root, op, *inputs, known=known, **attrs)


def _is_shared(view: View, items: tuple[Any, ...]) -> bool:
    """Whether all steps take the same number, or the same vector for all rows."""
    item = items[0]
    if any(other != item for other in items):
        return False
    node = view.node(item)
    return not isinstance(item, str) or (node is not None and node.op in SOURCES and (view.rank(item) or 0) < 2)


def _law(view: View, node: Node) -> Any:
    """What a node does with a step, equal for nodes that do the same; None if it may mix rows or is not known."""
    shape = view.shape(node.name)
    shared = [ref for ref in node.inputs if _is_shared(view, (ref,))]
    shapes = [view.shape(ref) for ref in node.inputs if ref not in shared]
    rows = {of[0] if of else None for of in (shape, *shapes)}
    if not shape or not shapes or len(rows) > 1 or None in rows or any(view.rank(ref) == len(shape) for ref in shared):
        return None
    if node.op == "module":
        spec = view.modules[str(node.attrs["module"])]
        one = (len(node.inputs) == 1 or spec.type in OF_SEQUENCES) and not spec.args.get("return_state")
        held = any(name.startswith(f"{node.attrs['module']}.") for name in view.store)
        return (held and node.attrs["module"], repr(spec)) if one and spec.type in OF_LAST_AXIS | _BY_ROW else None
    if node.op in ELEMENTWISE:
        return (node.op, repr(node.attrs)) if all(len(of or ()) == len(shape) for of in shapes) else None
    axes = _axes(view, node)
    last = {"softmax": 1, "log_softmax": 1, "join_last": node.attrs.get("count")}.get(node.op)  # how many axes it is of
    within = last is not None and last < (view.rank(node.inputs[0]) or 0)
    return (node.op, repr({**node.attrs, **axes})) if axes or within else None


def _axes(view: View, node: Node) -> dict[str, Any]:
    """The axes of a reduction or concatenation of rows, counted from the last one; empty for another node."""
    if node.op not in OF_AXES:
        return {}
    rank = view.rank(node.inputs[0]) or 0
    key = "axes" if "axes" in node.attrs else "axis"
    given = node.attrs[key]
    if given is None:
        return {}
    axes = [axis - rank if axis >= 0 else axis for axis in (given if isinstance(given, tuple) else (given,))]
    if not axes or any(not -rank < axis for axis in axes):
        return {}
    return {key: tuple(axes) if isinstance(given, tuple) else axes[0]}
