"""The emitter that converters write with: `t.gather(x, ids, axis=0)` appends a node to the torch graph and returns its
value.

It evaluates as much as possible at port time: an op with constant operands is folded, equal nodes are deduplicated, and
dtypes and shapes are inferred by running the op itself on meta tensors, at two sets of sizes.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from porting import budget
from porting.conversion import folding
from porting.conversion.inference import SizeExpressions, equal_rows, infer, positional, takes_literal
from porting.conversion.values import Constant, Operand, Sizes, Value, constant
from porting.errors import PortingError
from porting.names import Namer, clean
from torch_towers import layers as _layers  # noqa: F401  (fills MODULES)
from torch_towers import ops as _ops  # noqa: F401  (fills OPS)
from torch_towers.graph.dtypes import TORCH_DTYPES
from torch_towers.graph.effects import EFFECTS, has_effect
from torch_towers.graph.graph import Graph, ModuleSpec, Node, Size, TensorSpec, node_of, references
from torch_towers.graph.registry import MODULES, OPS, Op
from torch_towers.program.program import walk

_SMALL = 256  # elements up to which constants of equal value are merged


def _content(value: Constant) -> Any:
    """The identity of a constant for merging: its numbers if it is small, else the object."""
    array = value.array
    if not isinstance(array, torch.Tensor) or not 0 < array.numel() <= _SMALL:
        return id(array)
    return (
        value.dtype,
        value.shape,
        array.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8).numpy().tobytes(),
    )


class Emitter:
    """Collects the nodes of one graph. `store` collects constants, `scope` is the TF node being converted."""

    def __init__(
        self, inputs: Sequence[TensorSpec], *, store: dict[str, Any] | None = None, namer: Namer | None = None
    ):
        self.inputs = tuple(inputs)
        self.store: dict[str, Any] = {} if store is None else store
        self.modules: dict[str, ModuleSpec] = {}
        self.nodes: list[Node] = []
        self.budget = budget.current()
        self.scope = ""
        self.outer = ""
        self.names = namer or Namer()
        self._node_names = Namer()
        self._written: dict[Any, Any] = {}
        self._size_of: dict[str, Value] = {}
        self._held: dict[Any, tuple[str, Any]] = {}  # stored constants, by identity
        self._expressions = SizeExpressions()
        self._symbols = 0
        self.counts: dict[str, Sizes] = {}  # a float that was cast from a size -> the size
        self.equal_rows: list[tuple[str, str]] = []  # leading sizes that the graph requires to be equal
        self.parted_rows: dict[str, Size] = {}  # a partition of rows -> the dynamic size that it partitions
        self.known: dict[str, Value] = {}  # reference -> inferred value
        for spec in self.inputs:
            self._node_names(spec.name)

    @property
    def place(self) -> str:
        """The clean name of the TF node being converted, without the name of the outermost model."""
        return clean(self.scope).removeprefix(f"{self.outer}.") if self.scope else ""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Any op of the closed table, by name."""
        if name not in OPS:
            raise AttributeError(f"torch_towers.ops has no op {name!r}")
        return lambda *operands, **attrs: self.call(name, *operands, **attrs)

    # -- writing nodes ------------------------------------------------------------------------------------------------

    def call(self, name: str, *operands: Any, **attrs: Any) -> Any:
        """Writes one op, or folds it if every operand is constant. Returns a value, or a tuple of values."""
        entry = OPS[name]
        attrs = {key: _plain(value) for key, value in attrs.items()}
        specs = infer(entry, operands, attrs, self._expressions)
        size = self._folded_size(entry, operands, attrs, specs)
        if size is not None:
            self.budget.spend("fold_bytes", size, self.scope or name)
            return _fold(entry, operands, attrs)
        inputs = self._arguments(entry, operands)
        result = self._write(name, inputs, attrs, specs, self.place or name)
        self.equal_rows += equal_rows(entry, operands, attrs, result, self._expressions)
        return result

    def _folded_size(self, entry: Op, operands: Sequence[Any], attrs: dict[str, Any], specs: Any) -> int | None:
        """The bytes of an op's results if it can be folded: all operands are constant, and its results are small."""
        if entry.name in UNFOLDABLE or not _all_constant(operands) or any(isinstance(v, Graph) for v in attrs.values()):
            return None
        if specs is not None and any(spec[0] == "variant" for spec in specs):
            return None
        size = folding.size_of(entry.name, operands, attrs, specs)
        return size if size is not None and size <= folding.LIMIT else None

    def module(self, kind: str, name: str, args: Mapping[str, Any], *operands: Any) -> Any:
        """Writes a call of a module of the closed table. Equal (kind, name) pairs share one module."""
        if self.modules.setdefault(name, ModuleSpec(kind, dict(args))) != ModuleSpec(kind, dict(args)):
            raise PortingError(f"two different modules have the name {name!r}")
        specs = infer(MODULES[kind], operands, dict(args), self._expressions)
        inputs = tuple(self.operand(value) for value in operands)
        return self._write("module", inputs, {"module": name}, specs, name)

    def parameter(self, name: str, dtype: str, shape: Sequence[int]) -> Value:
        """The weight called `name`; the caller puts it into the store."""
        return self._write("parameter", (), {"tensor": name}, [(dtype, tuple(shape))], name)

    def operand(self, value: Any) -> Any:
        """`value` as a node input: a reference or a literal. Constants are put into the store."""
        if isinstance(value, Value):
            return value.ref
        if isinstance(value, Sizes):
            return self.operand(self.tensor(value))
        if isinstance(value, Constant):
            return self._store_constant(value).ref
        if isinstance(value, (tuple, list)):
            return tuple(self.operand(item) for item in value)  # type: ignore[reportUnknownVariableType]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        raise PortingError(f"{self.scope!r}: {type(value).__name__} cannot be the operand of an op")

    def tensor(self, value: Operand) -> Value | Constant:
        """`value` as a tensor; sizes are converted."""
        if isinstance(value, Sizes):
            items = value.items.reshape(-1).tolist()
            if all(isinstance(item, int) for item in items):
                return Constant(torch.tensor(value.items.tolist(), dtype=TORCH_DTYPES[value.dtype]))
            made = self.sizes_tensor(*items, dtype=value.dtype, scalar=value.items.ndim == 0)
            return self.reshape(made, *value.shape) if value.items.ndim > 1 else made
        if isinstance(value, (Value, Constant)):
            return value
        raise PortingError(f"{self.scope!r}: expected a tensor, found {value!r}")

    def graph(self, outputs: Mapping[str, Any]) -> Graph:
        """The graph written so far, pruned to outputs and checks."""
        refs = {name: self.operand(value) for name, value in outputs.items()}
        for name, ref in refs.items():
            if not isinstance(ref, str):
                refs[name] = self._store_constant(constant(ref)).ref
        needed = {node_of(ref) for ref in refs.values()}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if node.name in needed or has_effect(node):
                needed |= {node_of(ref) for ref in references(node.inputs)}
                kept.append(node)
        graph = Graph(self.inputs, tuple(reversed(kept)), refs)
        used = {str(node.attrs["module"]) for node in walk(graph) if node.op == "module"}
        modules = {name: spec for name, spec in self.modules.items() if name in used}
        return Graph(graph.inputs, graph.nodes, graph.outputs, modules)

    def _write(self, op: str, inputs: tuple[Any, ...], attrs: dict[str, Any], specs: Any, wanted: str) -> Any:
        key = (op, _key(inputs), _key(tuple(sorted(attrs.items(), key=lambda item: item[0]))))
        if op not in EFFECTS and key in self._written:
            return self._written[key]
        name = self._node_names(wanted)
        self.nodes.append(Node(name, op, inputs, attrs))
        if specs is None:
            specs = [(None, None)] * _result_count(op)
        if len(specs) == 1 and not _gives_tuple(op):
            result: Any = self.value(name, *specs[0])
        else:
            result = tuple(self.value(f"{name}:{i}", *spec) for i, spec in enumerate(specs))
        if op.startswith("size_"):  # a computed size gets its own symbol, which shapes may name
            self._expressions.computed[name] = (op, inputs)
            self._size_of[name] = result
        self._written[key] = result
        return result

    def value(self, ref: str, dtype: str | None, shape: tuple[Size, ...] | None) -> Value:
        """A value whose unknown dimensions get new symbols."""
        named = None if shape is None else tuple(self._symbol() if axis is None else axis for axis in shape)
        value = self.known[ref] = Value(ref, dtype, named)
        for axis in named or ():
            if isinstance(axis, str):
                self._size_of.setdefault(axis, value)
        return value

    def sizes(self, value: Value | Constant | Sizes) -> list[int | Value]:
        """The dimensions of `value` as integers and run-time sizes. The rank must be known."""
        assert value.shape is not None
        return [self._dimension(size) for size in value.shape]

    def _dimension(self, size: Size) -> int | Value:
        if isinstance(size, int):
            return size
        assert isinstance(size, str)
        source = self._size_of[size]
        if source.dtype == "size":
            return source
        assert source.shape is not None
        found = self.size(source, axis=source.shape.index(size))
        self._expressions.reads[found.ref] = size
        return found

    def symbol(self, item: int | Value) -> Size:
        """A size as written in shapes: an integer, or the symbol of a run-time size."""
        return self._expressions.reads.get(item.ref, item.ref) if isinstance(item, Value) else item

    def _symbol(self) -> str:
        self._symbols += 1
        return f"?{self._symbols}"

    def _store_constant(self, value: Constant) -> Value:
        key = _content(value)
        held = self._held.get(key)
        if held is None:
            if folding.is_splat(value.array):
                self.budget.spend("fold_bytes", folding.stored_bytes(value.array), self.scope or "constant")
            name = self.names.tensor(self._name_of(value))
            self.store[name] = value.array
            held = self._held[key] = (
                name,
                value.array,
            )  # keeps the array alive, so that its id stays unique
        return self._write("constant", (), {"tensor": held[0]}, [(value.dtype, value.shape)], held[0])

    def _name_of(self, value: Constant) -> str:
        if value.name:
            return clean(value.name).removeprefix(f"{self.outer}.")
        return f"{self.place}.constant" if self.place else "constant"

    def _arguments(self, entry: Op, operands: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs of a node: literals if the op accepts them, else references."""
        parameters = positional(entry, len(operands))
        arguments: list[Any] = []
        for (_, hint), operand in zip(parameters, operands, strict=True):
            if (
                isinstance(operand, Constant)
                and operand.shape == ()
                and operand.dtype in _LITERALS
                and takes_literal(hint)
            ):
                arguments.append(operand.python())
            elif isinstance(operand, Sizes) and operand.shape == () and hint is int:
                arguments.append(self.operand(operand.items.item()))
            else:
                arguments.append(self.operand(operand))
        return tuple(arguments)

    # -- inference ----------------------------------------------------------------------------------------------------

    def infer(self, node: Node, known: Mapping[str, Value]) -> list[tuple[Any, Any]]:
        """The dtype and shape of each result of a node, given `known` values; empty if unknown."""
        entry = OPS.get(node.op)
        if entry is None or any(isinstance(value, Graph) for value in node.attrs.values()):
            return []
        return infer(entry, _values(node.inputs, known), dict(node.attrs), self._expressions) or []


UNFOLDABLE = EFFECTS | {"size"}


def _values(operands: Any, known: Mapping[str, Value]) -> Any:
    """Operands with references replaced by known values."""
    if isinstance(operands, tuple):
        return tuple(_values(operand, known) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return known.get(operands, Value(operands, None, None)) if isinstance(operands, str) else operands


def _result_count(op: str) -> int:
    """The number of results in an op's annotation: 2 for `-> tuple[Tensor, Tensor]`."""
    return len(typing.get_args(OPS[op].hints["return"])) if _gives_tuple(op) else 1


def _gives_tuple(op: str) -> bool:
    return op in OPS and typing.get_origin(OPS[op].hints.get("return")) is tuple


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def _key(value: Any) -> Any:
    """A hashable key of operands and attributes that distinguishes 1, 1.0, True and -0.0, 0.0."""
    if isinstance(value, tuple):
        return tuple(_key(item) for item in value)
    if isinstance(value, Graph):
        return id(value)
    return (type(value).__name__, repr(value) if isinstance(value, float) else value)


def _all_constant(operands: Sequence[Any]) -> bool:
    return all(
        _all_constant(operand)
        if isinstance(operand, (tuple, list))
        else not isinstance(operand, Value) and not (isinstance(operand, Sizes) and _dynamic(operand))
        for operand in operands
    )


def _dynamic(sizes: Sizes) -> bool:
    return any(isinstance(item, Value) for item in sizes.items.reshape(-1).tolist())


def _fold(entry: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> Any:
    with torch.no_grad():
        result = entry.function(
            *[
                _concrete(operand, hint)
                for operand, (_, hint) in zip(operands, positional(entry, len(operands)), strict=True)
            ],
            **attrs,
        )
    return tuple(constant(item) for item in result) if isinstance(result, tuple) else constant(result)


def _concrete(operand: Any, hint: Any) -> Any:
    if isinstance(operand, (tuple, list)):
        return tuple(_concrete(item, hint) for item in operand)
    if isinstance(operand, Sizes):
        items = operand.items.tolist()
        return items if hint is int else torch.tensor(items, dtype=TORCH_DTYPES[operand.dtype])
    if isinstance(operand, Constant):
        return operand.python() if hint is int and operand.shape == () else operand.array
    return operand


_LITERALS = frozenset(name for name in TORCH_DTYPES if not name.startswith("complex"))
