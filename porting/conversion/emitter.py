"""Emitter: what a converter writes with. `t.gather(x, ids, axis=0)` appends one node of the torch graph and gives its value.

What can be known at port time is: an op whose operands are all constants is run at once, equal nodes are written once, and
dtypes and shapes are found by running the op itself on meta tensors, at two sets of sizes.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from porting import budget
from porting.conversion import folding
from porting.conversion.effects import EFFECTS, has_effect
from porting.conversion.values import Constant, Operand, Sizes, Value, constant
from porting.errors import PortingError
from porting.names import Namer, clean
from torch_towers import layers as _layers  # noqa: F401  (fills MODULES)
from torch_towers import ops as _ops  # noqa: F401  (fills OPS)
from torch_towers.graph.dtypes import TORCH_DTYPES, dtype_name
from torch_towers.graph.graph import Graph, ModuleSpec, Node, Size, TensorSpec, node_of, references
from torch_towers.graph.registry import MODULES, OPS, Number, Op
from torch_towers.program.program import walk
from torch_towers.program.shapes import WithoutCompiler

_PROBES = ((3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41), (43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97))


_SMALL = 256  # elements of a constant that is the same as another of equal values


def _content(value: Constant) -> Any:
    """What makes a constant the same as another: equal numbers where it is small, else being the same object."""
    array = value.array
    if not isinstance(array, torch.Tensor) or not 0 < array.numel() <= _SMALL:
        return id(array)
    return (
        value.dtype,
        value.shape,
        array.clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8).numpy().tobytes(),
    )


class Emitter:
    """Collects the nodes of one graph. `store` gathers constants, `scope` is the TensorFlow node being converted."""

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
        self._held: dict[Any, tuple[str, Any]] = {}  # constants that are stored, by what they are
        self._symbol_of: dict[str, str] = {}  # a `size` node -> the free size that it reads
        self._expressions: dict[str, tuple[str, tuple[Any, ...]]] = {}  # a `size_add`, ... node -> what it computes
        self._symbols = 0
        self.counts: dict[str, Sizes] = {}  # a float that a size was cast to -> the size
        self.equal_rows: list[tuple[str, str]] = []  # first sizes that the graph wants to be equal
        self.rows_of: dict[str, Size] = {}  # a partition of rows -> the free size of what it parts
        self.known: dict[str, Value] = {}  # reference -> what is known of the value
        for spec in self.inputs:
            self._node_names(spec.name)

    @property
    def place(self) -> str:
        """The cleaned name of the TensorFlow node being converted, without the name of the model around all of them."""
        return clean(self.scope).removeprefix(f"{self.outer}.") if self.scope else ""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Any op of the closed table by its name."""
        if name not in OPS:
            raise AttributeError(f"torch_towers.ops has no op {name!r}")
        return lambda *operands, **attrs: self.call(name, *operands, **attrs)

    # -- writing nodes ------------------------------------------------------------------------------------------------

    def call(self, name: str, *operands: Any, **attrs: Any) -> Any:
        """Writes one op, or runs it now where every operand is a constant. Gives a value, or a tuple of values."""
        entry = OPS[name]
        attrs = {key: _plain(value) for key, value in attrs.items()}
        specs = self._infer(entry, operands, attrs)
        size = self._folded_size(entry, operands, attrs, specs)
        if size is not None:
            self.budget.spend("fold_bytes", size, self.scope or name)
            return _fold(entry, operands, attrs)
        inputs = self._arguments(entry, operands)
        result = self._write(name, inputs, attrs, specs, self.place or name)
        self._relate(entry, operands, attrs, result)
        return result

    def _folded_size(self, entry: Op, operands: Sequence[Any], attrs: dict[str, Any], specs: Any) -> int | None:
        """The bytes of an op's results where it is run now: all its operands are constants, and its results are small."""
        if entry.name in UNFOLDABLE or not _all_constant(operands) or any(isinstance(v, Graph) for v in attrs.values()):
            return None
        if specs is not None and any(spec[0] == "variant" for spec in specs):
            return None
        size = folding.size_of(entry.name, operands, attrs, specs)
        return size if size is not None and size <= folding.LIMIT else None

    def module(self, kind: str, name: str, args: Mapping[str, Any], *operands: Any) -> Any:
        """Writes a call of a module of the closed table. Equal (kind, name) pairs are one module."""
        if self.modules.setdefault(name, ModuleSpec(kind, dict(args))) != ModuleSpec(kind, dict(args)):
            raise PortingError(f"two different modules want the name {name!r}")
        specs = self._infer(MODULES[kind], operands, dict(args))
        inputs = tuple(self.operand(value) for value in operands)
        return self._write("module", inputs, {"module": name}, specs, name)

    def parameter(self, name: str, dtype: str, shape: Sequence[int]) -> Value:
        """The weight called `name`; whoever emits it puts it into the store."""
        return self._write("parameter", (), {"tensor": name}, [(dtype, tuple(shape))], name)

    def operand(self, value: Any) -> Any:
        """`value` as the input of a node: a reference, or a literal. Constants are put into the store."""
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
        """`value` as a tensor: sizes are made into one."""
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
        """The graph written so far, with what no output needs left out (checks stay)."""
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
        if op.startswith("size_"):  # a computed size is a symbol of its own: shapes may name it
            self._expressions[name] = (op, inputs)
            self._size_of[name] = result
        self._written[key] = result
        return result

    def value(self, ref: str, dtype: str | None, shape: tuple[Size, ...] | None) -> Value:
        """A value whose unknown dimensions get names of their own."""
        named = None if shape is None else tuple(self._symbol() if axis is None else axis for axis in shape)
        value = self.known[ref] = Value(ref, dtype, named)
        for axis in named or ():
            if isinstance(axis, str):
                self._size_of.setdefault(axis, value)
        return value

    def sizes(self, value: Value | Constant | Sizes) -> list[int | Value]:
        """The dimensions of `value`, each an integer or a run-time size. The rank must be known."""
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
        self._symbol_of[found.ref] = size
        return found

    def symbol(self, item: int | Value) -> Size:
        """A size as shapes name it: an integer, or the symbol of a run-time size."""
        return self._symbol_of.get(item.ref, item.ref) if isinstance(item, Value) else item

    def _symbol(self) -> str:
        self._symbols += 1
        return f"?{self._symbols}"

    def _store_constant(self, value: Constant) -> Value:
        key = _content(value)
        held = self._held.get(key)
        if held is None:
            if folding.is_splat(value.array):
                self.budget.spend("fold_bytes", folding.stored_bytes(value.array), self.scope or "constant")
            name = self.names.tensor(f"{self.place}.constant" if self.place else "constant")
            self.store[name] = value.array
            held = self._held[key] = (
                name,
                value.array,
            )  # keeps the array alive, so that its id stays its own
        return self._write("constant", (), {"tensor": held[0]}, [(value.dtype, value.shape)], held[0])

    def _arguments(self, entry: Op, operands: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs of a node: literals where the op takes them, references elsewhere."""
        parameters = _positional(entry, len(operands))
        arguments: list[Any] = []
        for (_, hint), operand in zip(parameters, operands, strict=True):
            if (
                isinstance(operand, Constant)
                and operand.shape == ()
                and operand.dtype in _LITERALS
                and _takes_literal(hint)
            ):
                arguments.append(operand.python())
            elif isinstance(operand, Sizes) and operand.shape == () and hint is int:
                arguments.append(self.operand(operand.items.item()))
            else:
                arguments.append(self.operand(operand))
        return tuple(arguments)

    # -- what is known beforehand -------------------------------------------------------------------------------------

    def _infer(self, entry: Op, operands: Sequence[Any], attrs: dict[str, Any]) -> list[tuple[Any, Any]] | None:
        """The dtype and shape of each result, or None where nothing is known."""
        if entry.infer is not None:
            return list(entry.infer(*[_spec(operand) for operand in operands], **attrs))
        if entry.stage == "host":
            return None
        symbols = list(dict.fromkeys(_symbols(operands)))
        leaves = list(dict.fromkeys(leaf for symbol in symbols for leaf in self._leaves(symbol)))
        for free in (_distinct(leaves), _equal(leaves)):
            sizes = [{**sizing, **{symbol: self._evaluate(symbol, sizing) for symbol in symbols}} for sizing in free]
            probes = [_probe(entry, operands, attrs, sizing) for sizing in sizes]
            if all(probe is not None for probe in probes):
                return _merge(probes, sizes, len(set(free[0].values())) == len(leaves))
        return None

    def infer(self, node: Node, known: Mapping[str, Value]) -> list[tuple[Any, Any]]:
        """The dtype and shape of each result of a node among other `known` values; nothing where none are found."""
        entry = OPS.get(node.op)
        if entry is None or any(isinstance(value, Graph) for value in node.attrs.values()):
            return []
        return self._infer(entry, _values(node.inputs, known), dict(node.attrs)) or []

    def _relate(self, entry: Op, operands: Sequence[Any], attrs: dict[str, Any], result: Any) -> None:
        """Remembers that the first sizes of `operands` are equal, where the op takes them only so, and that a result has as many rows."""
        firsts = list(
            dict.fromkeys(size for operand in _tensors(operands) if isinstance(size := operand.shape[0], str))
        )
        symbols = list(dict.fromkeys(_symbols(operands)))
        if entry.infer is not None or len(firsts) < 2 or any(self._operands_of(symbol) for symbol in symbols):
            return
        if len(symbols) > len(_PROBES[0]) and len(firsts) < len(symbols):
            return
        rows = [dict.fromkeys(firsts, sizing[firsts[0]]) for sizing in _distinct(symbols)]
        if len(symbols) <= len(_PROBES[0]) and _probe(entry, operands, attrs, _distinct(symbols)[0]) is not None:
            return
        probes = [_probe(entry, operands, attrs, {**s, **r}) for s, r in zip(_distinct(symbols), rows, strict=True)]
        if any(probe is None for probe in probes):
            return
        self.equal_rows += [(firsts[0], other) for other in firsts[1:]]
        for value, first, second in zip(result if isinstance(result, tuple) else (result,), *probes, strict=True):
            follows = first[1][:1] == (rows[0][firsts[0]],) and second[1][:1] == (rows[1][firsts[0]],)
            if follows and value.shape and isinstance(value.shape[0], str):
                self.equal_rows.append((firsts[0], value.shape[0]))

    def _leaves(self, symbol: str) -> list[str]:
        """The free sizes that a size is computed from."""
        return [found for found in self._computed_from(symbol) if self._operands_of(found) is None]

    def _evaluate(self, symbol: str, sizing: Mapping[str, int]) -> int:
        """A size where the free sizes are those of `sizing`."""
        values = dict(sizing)
        for found in self._computed_from(symbol):
            operands = self._operands_of(found)
            if operands is not None and found not in values:
                numbers = [values[item] if isinstance(item, str) else item for item in operands]
                name = self._expressions[found][0] if found in self._expressions else ""
                values[found] = OPS[name].function(*numbers) if name else numbers[0]
        return values[symbol]

    def _operands_of(self, symbol: str) -> tuple[Any, ...] | None:
        """What a size is computed from; None for a free one."""
        if symbol in self._symbol_of:
            return (self._symbol_of[symbol],)
        return self._expressions[symbol][1] if symbol in self._expressions else None

    def _computed_from(self, symbol: str) -> list[str]:
        """`symbol` and all that it is computed from, operands first. Each once: arithmetic may be long and share its parts."""
        found: dict[str, None] = {}
        pending = [symbol]
        while pending:
            operands = [item for item in self._operands_of(pending[-1]) or () if isinstance(item, str)]
            left = [item for item in operands if item not in found]
            if left:
                pending += left
            else:
                found[pending.pop()] = None
        return list(found)


UNFOLDABLE = EFFECTS | {"size"}


def _values(operands: Any, known: Mapping[str, Value]) -> Any:
    """Operands with what is known of them in place of their references."""
    if isinstance(operands, tuple):
        return tuple(_values(operand, known) for operand in operands)  # type: ignore[reportUnknownVariableType]
    return known.get(operands, Value(operands, None, None)) if isinstance(operands, str) else operands


def _result_count(op: str) -> int:
    """How many results an op is annotated to give: 2 for `-> tuple[Tensor, Tensor]`."""
    return len(typing.get_args(OPS[op].hints["return"])) if _gives_tuple(op) else 1


def _gives_tuple(op: str) -> bool:
    return op in OPS and typing.get_origin(OPS[op].hints.get("return")) is tuple


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def _key(value: Any) -> Any:
    """A hashable stand-in for operands and attributes, in which 1, 1.0, True and -0.0, 0.0 differ."""
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
                for operand, (_, hint) in zip(operands, _positional(entry, len(operands)), strict=True)
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


def _positional(entry: Op, count: int) -> list[tuple[str, Any]]:
    """The names and annotations of the first `count` operands of an op."""
    found: list[tuple[str, Any]] = []
    for name, parameter in entry.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found += [(name, entry.hints.get(name))] * (count - len(found))
        elif parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            hint = entry.hints.get(name)
            found.append((name, int if hint == int | None else hint))  # an open bound is no other kind of operand
    return found[:count]


_LITERALS = frozenset(name for name in TORCH_DTYPES if not name.startswith("complex"))


def _takes_literal(hint: Any) -> bool:
    return (
        hint is int
        or hint == Number
        or (hint is not None and set(typing.get_args(Number)) <= set(typing.get_args(hint)))
    )


def _spec(operand: Any) -> Any:
    if isinstance(operand, (tuple, list)):
        return tuple(_spec(item) for item in operand)
    if isinstance(operand, (Value, Constant, Sizes)):
        return (operand.dtype, operand.shape)
    return (type(operand).__name__, ())


def _symbols(operands: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for operand in operands:
        if isinstance(operand, (tuple, list)):
            found += _symbols(operand)
        elif isinstance(operand, Value) and operand.dtype == "size":
            found.append(operand.ref)
        elif isinstance(operand, Sizes):
            found += _symbols(operand.items.reshape(-1).tolist())
        elif isinstance(operand, Value) and operand.shape is not None:
            found += [size for size in operand.shape if isinstance(size, str)]
    return found


def _tensors(operands: Sequence[Any]) -> list[Any]:
    """The operands that are tensors with an axis."""
    nested = [operand if isinstance(operand, (tuple, list)) else (operand,) for operand in operands]
    return [
        item for items in nested for item in items if isinstance(item, Value) and item.dtype != "size" and item.shape
    ]


def _distinct(symbols: list[str]) -> list[dict[str, int]]:
    """Two sizings in which every free size is another prime, so that a size of the result tells where it comes from."""
    if len(symbols) > len(_PROBES[0]):
        return _equal(symbols)
    return [dict(zip(symbols, probe, strict=False)) for probe in _PROBES]


def _equal(symbols: list[str]) -> list[dict[str, int]]:
    """Two sizings in which all free sizes are equal, for ops that join tensors whose sizes are equal by the model's nature."""
    return [dict.fromkeys(symbols, probe[0]) for probe in _PROBES]


def _probe(entry: Op, operands: Sequence[Any], attrs: dict[str, Any], sizing: dict[str, int]) -> Any:
    """Runs the op on meta tensors of one sizing; None where that is impossible.

    Constants are on the meta device too, unless the op wants to read them.
    """
    found = _tried(entry, operands, attrs, sizing, device="meta")
    return _tried(entry, operands, attrs, sizing, device="cpu") if found is None else found


def _tried(entry: Op, operands: Sequence[Any], attrs: dict[str, Any], sizing: dict[str, int], device: str) -> Any:
    try:
        metas = [
            _meta(operand, hint, sizing, device)
            for operand, (_, hint) in zip(operands, _positional(entry, len(operands)), strict=True)
        ]
        extra = {"device": torch.device("meta")} if entry.takes_device else {}
        with torch.no_grad(), WithoutCompiler():
            result = entry.function(*metas, **attrs, **extra)
    except Exception:
        return None
    results = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(item, torch.Tensor) for item in results):
        return None
    moves_strings = any(dtype == "string" for dtype in _dtypes(operands))
    return [
        ("string" if moves_strings and item.dtype == torch.int8 else dtype_name(item), tuple(item.shape))
        for item in results
    ]


def _dtypes(operands: Sequence[Any]) -> list[str | None]:
    nested = [operand if isinstance(operand, (tuple, list)) else (operand,) for operand in operands]
    return [getattr(item, "dtype", None) for items in nested for item in items]


class _UnknownError(Exception):
    """An operand of which too little is known to stand in for it."""


_STRING_STAND_IN = torch.int8
"""What strings are on the meta device: an op that moves strings gives this dtype back."""


def _meta(operand: Any, hint: Any, sizing: dict[str, int], device: str) -> Any:
    """What stands in for an operand; `device` is where its constants are."""
    if isinstance(operand, (tuple, list)):
        return tuple(_meta(item, hint, sizing, device) for item in operand)
    if isinstance(operand, Sizes):
        items = [_meta(item, int, sizing, device) for item in operand.items.reshape(-1).tolist()]
        tensor = torch.tensor(items, dtype=TORCH_DTYPES[operand.dtype]).reshape(operand.shape)
        return tensor.item() if hint is int else tensor.to(device)
    if isinstance(operand, Constant):
        if not isinstance(operand.array, torch.Tensor):
            return torch.empty(operand.shape, dtype=_STRING_STAND_IN, device="meta")
        if operand.shape == () and _takes_literal(hint):
            return operand.python()
        return operand.array.to("meta" if operand.array.numel() > 64 else device)
    if isinstance(operand, Value):
        if operand.dtype == "size":
            return sizing[operand.ref]
        dtype = _STRING_STAND_IN if operand.dtype == "string" else TORCH_DTYPES.get(operand.dtype or "")
        if operand.shape is None or dtype is None:
            raise _UnknownError
        shape = [sizing[size] if isinstance(size, str) else size for size in operand.shape]
        return torch.empty(typing.cast(Any, shape), dtype=dtype, device="meta")
    return operand


def _merge(probes: list[Any], sizings: list[dict[str, int]], distinct: bool) -> list[tuple[Any, Any]] | None:
    """What two probes agree on: equal sizes are fixed, sizes that follow a symbol carry its name, others are unknown."""
    merged: list[tuple[Any, Any]] = []
    for (dtype, first), (_, second) in zip(*probes, strict=True):
        if len(first) != len(second):
            merged.append((dtype, None))
            continue
        merged.append((dtype, tuple(_merged_size(a, b, sizings, distinct) for a, b in zip(first, second, strict=True))))
    return merged


def _merged_size(a: int, b: int, sizings: list[dict[str, int]], distinct: bool) -> Size:
    if a == b:
        return a
    if not distinct:
        return None  # all sizes were probed as equal: which one this is cannot be told
    return next((name for name in sizings[0] if (sizings[0][name], sizings[1][name]) == (a, b)), None)
