"""Branches and loops, with their bodies converted to graphs of torch ops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.shape_arithmetic import INTEGERS, scalar, vector
from porting.conversion.values import Constant, Sizes, Value, constant
from porting.errors import PortingError
from torch_towers.graph.graph import Graph, TensorSpec, node_of, references
from torch_towers.ops.control_flow import holds

Emit = ConvertingEmitter
_PASSIVE = frozenset({"Const", "Identity", "NoOp", "Assert"})
"""Ops that cannot fail and are cheap: the message of an assertion may be computed in advance."""
_MAX_ROUNDS = 8


@converter("If", "StatelessIf", ignores=("output_shapes",))
def if_(t: Emit, predicate: Any, *operands: Any, then_branch: Any, else_branch: Any) -> list[Any]:
    if isinstance(predicate, Sizes) and all(isinstance(item, int) for item in predicate.items.reshape(-1).tolist()):
        predicate = t.tensor(predicate)
    if isinstance(predicate, Constant):
        return t.inline(then_branch if holds(predicate.array) else else_branch, operands)
    return branch(t, t.tensor(predicate), operands, then_branch, else_branch)


@converter("Case", "StatelessCase", ignores=("output_shapes",))
def case(t: Emit, index: Any, *operands: Any, branches: Any) -> list[Any]:
    """A tree of `cond`s; an index out of range selects the last branch."""
    last = len(branches) - 1
    if isinstance(index, Constant):
        number = int(index.python())
        return t.inline(branches[number if 0 <= number < len(branches) else -1], operands)
    index = t.tensor(index)
    if last > 1:  # with two branches, the index is compared with the first
        index = t.where(t.logical_or(t.less(index, 0), t.greater(index, last)), constant(last, torch.int32), index)
    return _case(t, index, operands, tuple(branches), 0)


def _case(t: Emit, index: Any, operands: Sequence[Any], branches: tuple[Any, ...], first: int) -> list[Any]:
    """The branch `index - first`, by binary search, so that a thousand branches are ten deep."""
    if len(branches) == 1:
        return t.inline(branches[0], operands)
    half = len(branches) // 2

    def below(inner: Emit, values: Sequence[Any]) -> list[Any]:
        return _case(inner, values[0], values[1:], branches[:half], first)

    def above(inner: Emit, values: Sequence[Any]) -> list[Any]:
        return _case(inner, values[0], values[1:], branches[half:], first + half)

    is_below = t.equal(index, first) if half == 1 else t.less(index, first + half)
    return _branch(t, is_below, [index, *operands], below, above)


def branch(t: Emit, predicate: Any, operands: Sequence[Any], then_branch: Any, else_branch: Any) -> list[Any]:
    """A `cond` node, or something simpler: an assertion guarded by its own condition is a check, and values that both
    branches pass through stay."""
    if _guards_assertion(t, predicate, operands, then_branch, else_branch):
        t.inline(else_branch, operands)
        return t.inline(then_branch, operands)
    return _branch(
        t,
        predicate,
        operands,
        lambda inner, values: inner.inline(then_branch, values),
        lambda inner, values: inner.inline(else_branch, values),
    )


def _guards_assertion(t: Emit, predicate: Any, operands: Sequence[Any], then_branch: Any, else_branch: Any) -> bool:
    """True for `if not p: Assert(p, ...)`, as tf.debugging writes it: one branch is empty, the other asserts p."""
    then, otherwise = t.flat(then_branch), t.flat(else_branch)
    if any(node.op not in _PASSIVE or node.op == "Assert" for node in then.nodes) or any(
        node.op not in _PASSIVE for node in otherwise.nodes
    ):
        return False
    known = {spec.name: operand for spec, operand in zip(otherwise.inputs, operands, strict=True)}
    asserts = [node for node in otherwise.nodes if node.op == "Assert"]
    for node in otherwise.nodes:
        if node.op == "Identity":
            known[node.name] = known.get(node_of(node.inputs[0]))
    # Both branches return the same if the results are operands, and the check holds if they differ.
    return (
        bool(asserts)
        and isinstance(predicate, Value)
        and all(known.get(node_of(node.inputs[0])) is predicate for node in asserts)
    )


def _branch(t: Emit, predicate: Any, operands: Sequence[Any], then_branch: Any, else_branch: Any) -> list[Any]:
    frame = Frame(t)
    given = [frame.bind(operand, f"operand_{i}") for i, operand in enumerate(operands)]
    bodies = [frame.emitter(), frame.emitter()]
    results = [write(inner, given) for write, inner in zip((then_branch, else_branch), bodies, strict=True)]
    kept: list[int] = []
    values: list[Any] = []
    for i, (then, otherwise) in enumerate(zip(*results, strict=True)):
        same = frame.outer(then) if then is otherwise or (isinstance(then, Value) and then == otherwise) else None
        values.append(same)
        if same is None:
            kept.append(i)
    specs = [_joined(t, frame, results[0][i], results[1][i]) for i in kept]
    graphs = [
        inner.graph({f"output_{i}": result[i] for i in kept}) for inner, result in zip(bodies, results, strict=True)
    ]
    if not kept and not any(graph.nodes for graph in graphs):
        return values
    graphs, outer = frame.pruned(graphs)
    found = t.write_call("cond", [predicate, *outer], specs, then_branch=graphs[0], else_branch=graphs[1])
    for i, value in zip(kept, found, strict=True):
        values[i] = value
    return values


@converter("While", "StatelessWhile", ignores=("output_shapes", "maximum_iterations"))
def while_(t: Emit, *operands: Any, cond: Any, body: Any) -> list[Any]:
    """A loop over the variables that its body changes; the others are the same inside and outside.

    The inferred spec of a variable must hold in every iteration. It starts as that of the initial value. The body is
    converted with that; if a result is less specific, the trial is rolled back, and the body is converted again with
    the weaker spec. In

        i, x = 0, zeros([1, 4])
        while i < 10:
            i, x = i + 1, concat([x, x], axis=0)

    `x` starts as [1, 4] and comes back as [2, 4]. With [?, 4] it comes back as [?, 4], so the loop carries [?, 4]. `i`
    is only a counter, so it becomes a Python integer instead of a tensor.
    """
    flat = t.flat(body)
    changing = [i for i in range(len(operands)) if not _passes_on(flat, i)]
    counters = {i: operands[i].dtype for i in changing if _is_number(operands[i]) and _only_counts(flat, i)}
    start = {i: _first(operands[i]) if i in counters else _start(t, operands[i]) for i in changing}
    known: _Known = {i: ("size", ()) if i in counters else (start[i].dtype, start[i].shape) for i in changing}
    for _ in range(_MAX_ROUNDS):
        undo = t.snapshot()
        frame, given = _framed(t, operands, start, known, counters)
        inner = frame.emitter()
        results = inner.inline(body, given)
        found = {i: known[i] if i in counters else _joined(t, frame, given[i], results[i]) for i in changing}
        if found == known:
            break
        undo()
        known = found
    else:
        raise PortingError(f"{t.scope!r}: the shapes of the loop's variables do not converge")
    test = frame.emitter()
    test.counting = True
    graphs = [
        test.graph({"output": _first(test.inline(cond, given)[0])}),
        inner.graph({f"output_{i}": _first(results[i]) if i in counters else results[i] for i in changing}),
    ]
    graphs, outer = frame.pruned(graphs, keep=len(changing))
    values = t.write_call(
        "while_loop", outer, list(known.values()), cond=graphs[0], body=graphs[1], carried=len(changing)
    )
    after = {
        i: Sizes(scalar(value), counters[i]) if i in counters else value
        for i, value in zip(changing, values, strict=True)
    }
    return [after.get(i, operand) for i, operand in enumerate(operands)]


_Known = dict[int, tuple[Any, Any]]
"""The inferred dtype and shape of each variable that changes."""


def _framed(
    t: Emit, operands: Sequence[Any], start: Mapping[int, Any], known: _Known, counters: Mapping[int, str]
) -> tuple[Frame, list[Any]]:
    """A frame whose first inputs are the variables of `start`, and the inner value of each operand."""
    frame = Frame(t)
    given = list(operands)
    for i, first in start.items():
        given[i] = frame.argument(first, known[i], f"variable_{i}")
        if i in counters:
            given[i] = Sizes(scalar(given[i]), counters[i])
    return frame, [
        given[i] if i in start else frame.bind(operand, f"operand_{i}") for i, operand in enumerate(operands)
    ]


_COUNTS = frozenset(
    {"Identity", "Add", "AddV2", "TensorListGetItem", "TensorListSetItem", "TensorArrayReadV3", "TensorArrayWriteV3"}
)


def _is_number(operand: Any) -> bool:
    """True for one known integer, or a size."""
    return isinstance(operand, (Constant, Sizes)) and operand.shape == () and operand.dtype in INTEGERS


def _first(operand: Any) -> Any:
    """A size, or a number, as a scalar."""
    if isinstance(operand, Sizes):
        return operand.items.item()
    return operand.python() if isinstance(operand, Constant) and operand.dtype in INTEGERS else operand


def _only_counts(body: Graph, position: int) -> bool:
    """True for a counter: a variable that grows by a constant and is only used to index lists, so Python can count it.

    The number of steps of such a loop does not depend on a tensor; it can be unrolled and compiled.
    """
    nodes = {node.name: node for node in body.nodes}
    same = {body.inputs[position].name}
    following = node_of(list(body.outputs.values())[position])
    while following in nodes and nodes[following].op == "Identity":
        following = node_of(nodes[following].inputs[0])
    step = nodes.get(following)
    if step is None or step.op not in ("Add", "AddV2"):
        return False
    for node in body.nodes:
        used = [i for i, ref in enumerate(node.inputs) if node_of(ref) in same]
        if used and (
            node.op not in _COUNTS
            or (node.op.startswith("Tensor") and used != [1])
            or (node.op.startswith("Add") and node is not step)
        ):
            return False
        if used and node.op == "Identity":
            same.add(node.name)
    others = [node_of(ref) for ref in step.inputs if node_of(ref) not in same]
    return len(others) == 1 and others[0] in nodes and nodes[others[0]].op == "Const"


def _passes_on(body: Graph, position: int) -> bool:
    """True if the body returns its operand `position` unchanged."""
    nodes = {node.name: node for node in body.nodes}
    reference = list(body.outputs.values())[position]
    while (name := node_of(reference)) in nodes and nodes[name].op == "Identity":
        reference = nodes[name].inputs[0]
    return name == body.inputs[position].name


def _start(t: Emit, operand: Any) -> Value | Constant:
    """The initial value of a loop variable."""
    if isinstance(operand, (Value, Constant, Sizes)):
        return t.tensor(operand)
    raise PortingError(
        f"{t.scope!r}: the loop changes {operand!r}, which must be known in advance; only tensors may change in a loop"
    )


def _joined(t: Emit, frame: Frame, first: Any, second: Any) -> tuple[Any, Any]:
    """The spec of a value that is either of two: common sizes that are meaningful outside the body."""
    dtypes = {_tensor_like(t, value).dtype for value in (first, second)}
    known = dtypes - {None}
    if len(known) > 1:
        raise PortingError(f"{t.scope!r}: a result is {' in one body and '.join(sorted(map(str, known)))} in the other")
    shapes = [value.shape for value in (first, second)]
    dtype = next(iter(known), None)
    if any(shape is None for shape in shapes) or len(shapes[0]) != len(shapes[1]):
        return dtype, None
    return dtype, tuple(
        a if a == b and (isinstance(a, int) or a in frame.symbols) else None for a, b in zip(*shapes, strict=True)
    )


def _tensor_like(t: Emit, value: Any) -> Any:
    if isinstance(value, (Value, Constant, Sizes)):
        return value
    raise PortingError(f"{t.scope!r}: a branch or loop returns {value!r}, which must be known in advance")


@dataclass
class _Input:
    outer: Any
    inner: Value


class Frame:
    """The operands of a branch or loop, outside and inside: port-time values are bound, the rest become inputs."""

    def __init__(self, t: Emit) -> None:
        self.t = t
        self.inputs: list[_Input] = []
        self.symbols: set[Any] = set()  # named sizes with the same meaning outside

    def emitter(self) -> Emit:
        """An emitter for one body, with all inputs so far."""
        specs = tuple(TensorSpec(item.inner.ref, item.inner.dtype or "", item.inner.shape) for item in self.inputs)
        inner = self.t.nested(specs)
        for item in self.inputs:
            inner.value(item.inner.ref, item.inner.dtype, item.inner.shape)
        return inner

    def bind(self, operand: Any, name: str) -> Any:
        """The inner value of `operand`: itself if it is known at port time, else an input."""
        if isinstance(operand, Sizes):
            items = [
                self._add(item, f"{name}_{i}", item.dtype, item.shape) if isinstance(item, Value) else item
                for i, item in enumerate(operand.items.reshape(-1).tolist())
            ]
            return Sizes(vector(items).reshape(operand.items.shape), operand.dtype)
        if isinstance(operand, Value):
            self.symbols |= set(operand.shape or ())
            return self._add(operand, name, operand.dtype, operand.shape)
        return operand

    def argument(self, start: Any, known: tuple[Any, Any], name: str) -> Value:
        """The input that starts as `start`, with only the spec `known`."""
        dtype, shape = known
        self.symbols |= {size for size in shape or () if isinstance(size, str)}
        return self._add(start, name, dtype, shape)

    def _add(self, outer: Any, name: str, dtype: str | None, shape: Any) -> Value:
        """Adds an input."""
        named = None if shape is None else tuple(self.t.fresh_symbol() if size is None else size for size in shape)
        value = Value(name, dtype, named)
        self.inputs.append(_Input(outer, value))
        return value

    def outer(self, value: Any) -> Any:
        """The outer value of an inner one that is an operand; else None."""
        if isinstance(value, Value):
            return next((item.outer for item in self.inputs if item.inner == value), None)
        return value

    def pruned(self, graphs: Sequence[Graph], keep: int = 0) -> tuple[list[Graph], list[Any]]:
        """`graphs` without unused inputs (the first `keep` stay), and the remaining operands."""
        used: set[str] = set()
        for graph in graphs:
            used |= {node_of(ref) for ref in graph.outputs.values()}
            used |= {node_of(ref) for node in graph.nodes for ref in references(node.inputs)}
        kept = [item for i, item in enumerate(self.inputs) if i < keep or item.inner.ref in used]
        names = {item.inner.ref for item in kept}
        trimmed = [
            Graph(tuple(spec for spec in graph.inputs if spec.name in names), graph.nodes, graph.outputs, graph.modules)
            for graph in graphs
        ]
        return trimmed, [item.outer for item in kept]


@converter("BranchIndex")
def branch_index(t: Emit, predicate: Any) -> Any:
    """The index of the branch that ran, the second result of a TF1 Merge. An internal op, written by
    porting.flat_graph.control_flow_v1."""
    if isinstance(predicate, Constant):
        return Constant(torch.tensor(int(holds(predicate.array)), dtype=torch.int32))
    return t.branch_index(predicate)
