"""Walks a flat TF graph and records how the values of its inputs are used.

This is an abstract interpretation. Every element of a tensor is traced back to the input element that it comes from,
through ops that move elements (reshape, slice, pack, ...; run by the op's own converter on positions instead of
values), and through arithmetic with constants (`value = scale * input + offset`). Where values reach a table, a gather,
buckets or a constant, that is recorded for the input elements, in the input's own units. Values computed from several
elements are not traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from porting.conversion.convert import Context, ConvertingEmitter
from porting.conversion.values import Constant, Sizes, constant
from porting.errors import PortingError
from porting.flat_graph.flatten import as_graph, flatten
from porting.samples.serialized_examples import Feature
from porting.saved_model import FunctionRef, SavedModel
from torch_towers.formats.npz import to_numpy
from torch_towers.graph.graph import Graph, Node, TensorSpec

ROWS = 2  # traced batch size
LENGTH = 5  # elements along a dynamic inner axis
PIXEL = 0.01  # smaller scales mean pixels or counts, which are nonnegative
SMALL = 1 << 14  # elements: of larger weights and constants only the shape is known
LARGE = 1 << 12  # elements per row above which all are treated alike, except along the last axis (channels)

Array = np.ndarray[Any, Any]


@dataclass
class Domain:
    """What is known of some input elements. Numbers are in the input's units; for a text, the number that it spells."""

    keys: list[Any] = field(default_factory=list[Any])  # some keys of the tables in which it is looked up
    ranges: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])  # ids: first and last
    edges: list[float] = field(default_factory=list[float])  # bucket boundaries and constants that it is compared with
    spreads: list[tuple[float, float]] = field(
        default_factory=list[tuple[float, float]]
    )  # typical ranges, from normalization
    masks: list[bool] = field(default_factory=list[bool])  # 0 or 1
    numbers: list[str] = field(default_factory=list[str])  # a text that is parsed as a number of these dtypes
    pieces: list[str] = field(default_factory=list[str])  # "position length" of substrings
    separators: list[bytes] = field(default_factory=list[bytes])  # where a text is split
    patterns: list[bytes] = field(default_factory=list[bytes])  # regular expressions applied to a text
    decoders: list[str] = field(default_factory=list[str])  # ops that decode it as an image
    counts: list[bool] = field(default_factory=list[bool])  # a size, or the number of iterations of a loop: kept small
    encodings: list[str] = field(default_factory=list[str])  # "base64": the rest holds for the decoded text
    features: list[tuple[Feature, int]] = field(
        default_factory=list[tuple[Feature, int]]
    )  # a record, with the element of each feature
    truths: list[bool] = field(default_factory=list[bool])  # only its truth value matters


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Where the elements of a tensor come from: `scale * element + offset`; origin -1 means the constant `offset`.

    `fixed` False: the set of elements is known, but not their arrangement.
    """

    origin: Array
    scale: Array
    offset: Array
    fixed: bool = True


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of which only the shape is known."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table, by its key in the SavedModel."""

    key: str


class Follower:
    """Walks a graph in topological order."""

    def __init__(self, model: SavedModel) -> None:
        self.model = model
        self.context = Context(model)
        self.domains: list[Domain] = []
        self.stack: tuple[str, ...] = ()
        self.counting = False  # in the condition of a loop

    def number(self, spec: TensorSpec) -> Array:
        """Assigns numbers to the elements of an input."""
        shape = tuple(
            size if isinstance(size, int) else 1 for size in (spec.shape if spec.shape is not None else (None,))
        )
        if np.prod(shape, dtype=float) > LARGE:
            shape = (*(1 for _ in shape[:-1]), shape[-1] if shape[-1] <= 64 else 1)
        count, start = int(np.prod(shape)), len(self.domains)
        self.domains += [Domain() for _ in range(count)]
        return np.arange(start, start + count).reshape(shape)

    def feature(self, value: Any, feature: Feature) -> int:
        """The element of a feature of the record `value`."""
        (origin, *_), *_ = _distinct(value)
        known = self.domains[origin].features
        for other, element in known:
            if other.name == feature.name:
                return element
        self.domains.append(Domain())
        known.append((feature, len(self.domains) - 1))
        return len(self.domains) - 1

    def start(self, ids: Array, shape: Any) -> Trace:
        """The trace of an input itself, with sizes for its dynamic axes."""
        sizes = [LENGTH if i else ROWS for i in range(ids.ndim)]
        known: list[Any] = list(shape) if shape is not None else [None]
        full = tuple(size if isinstance(size, int) else sizes[i] for i, size in enumerate(known))
        if np.prod(full, dtype=float) > 1 << 20:
            return loose([plain(ids.reshape(-1))])
        return plain(np.broadcast_to(ids, full))

    def run(self, graph: Graph, operands: Sequence[Any]) -> list[Any]:
        """Follows `operands` through a graph and returns its outputs in order."""
        env: dict[str, Any] = {}
        for spec, operand in zip(graph.inputs, operands, strict=True):
            env[spec.name] = [operand]
        for node in graph.nodes:
            found = [_look_up(ref, env) for ref in node.inputs]
            env[node.name] = self._follow(node, found)
        return [_look_up(ref, env) for ref in graph.outputs.values()]

    def note(self, value: Any, kind: str, *found: Any) -> None:
        """Records a fact for every source element of `value`; numbers in `found` are converted to the element's
        units."""
        if not isinstance(value, Trace):
            return
        for origin, scale, offset in _distinct(value):
            notes: list[Any] = getattr(self.domains[origin], kind)
            for item in found:
                back = _back(item, scale, offset)
                if back not in notes and len(notes) < 200:
                    notes.append(back)

    def _follow(self, node: Node, operands: list[Any]) -> Any:
        if "variable" in node.attrs or "table" in node.attrs or node.op == "Const":
            return [self._source(node)]
        traced = [value for value in operands if isinstance(value, Trace)]
        if not traced:
            return self._folded(node, operands)
        handler = HANDLERS.get(node.op)
        if handler is not None:
            return handler(self, node, operands)
        if node.op in MOVES:
            return self.moved(node, operands)
        if node.op in SAME:
            return [traced[0]] * len(operands)
        if node.op in PIECES:
            return [loose(traced)] * 8
        for value in traced:
            self.ends(value)
        return []

    def _source(self, node: Node) -> Any:
        if "table" in node.attrs:
            return Table(str(node.attrs["table"]))
        if "variable" in node.attrs:
            variable = self.model.variables[str(node.attrs["variable"])]
            shape = tuple(variable.shape)
            small = np.prod(shape, dtype=float) <= SMALL and hasattr(variable, "numpy")
            return np.asarray(variable.numpy()) if small else Weight(shape)
        array = to_numpy(node.attrs["value"])
        return array if array.size <= SMALL else Weight(array.shape)

    def _folded(self, node: Node, operands: list[Any]) -> list[Any]:
        """The results of an op on constants; tables and large weights pass through ops that only pass them on."""
        if node.op in HANDED_ON or (node.op == "Cast" and isinstance(operands[0], Weight)):
            return operands[:1]
        if node.op == "Shape" and isinstance(operands[0], (Weight, np.ndarray)):
            return [np.array(operands[0].shape)]
        if node.op == "Minimum":  # a size bounded by a constant is assumed to be that
            known = [value for value in operands if isinstance(value, np.ndarray)]
            if len(known) == 1:
                return known
        if any(isinstance(value, FunctionRef | Graph) for value in node.attrs.values()):
            return HANDLERS[node.op](self, node, operands) if node.op in HANDLERS else []
        if not all(isinstance(value, np.ndarray) for value in operands) or node.op.startswith(_STATEFUL):
            return []
        return self._executed(node, operands) or []

    def _executed(self, node: Node, operands: Sequence[Array]) -> list[Any] | None:
        """The results of one op, run by its converter; None if unknown."""
        specs = tuple(TensorSpec(f"operand_{i}", "", None) for i in range(len(operands)))
        count = int(node.attrs.get("num_split", node.attrs.get("num", 1)))
        outputs = {str(i): f"{node.name}:{i}" if count > 1 else node.name for i in range(count)}
        single = Node(node.name, node.op, tuple(spec.name for spec in specs), node.attrs)
        given = {spec.name: constant(np.array(array)) for spec, array in zip(specs, operands, strict=True)}
        try:
            emitter = ConvertingEmitter(Graph((), (), {}), self.context)
            found = emitter.run(Graph(specs, (single,), outputs), given)
        except (PortingError, ValueError, TypeError, RuntimeError, IndexError, KeyError):
            return None  # an unsupported op, or sizes that a real batch does not have
        arrays = [_as_array(value) for value in found.values()]
        return None if any(array is None for array in arrays) else arrays

    def moved(self, node: Node, operands: list[Any]) -> list[Any]:
        """An op that only moves elements, run on their positions."""
        data = MOVES[node.op](len(operands))
        for i, value in enumerate(operands):
            if i not in data:
                self.note(value, "counts", True)
        pool = _Pool()
        places: list[Any] = [pool.add(value) if i in data else value for i, value in enumerate(operands)]
        traced = [operands[i] for i in data if isinstance(operands[i], Trace)]
        if not traced:
            return []
        known = all(isinstance(place, np.ndarray) for place in places) and all(trace.fixed for trace in traced)
        found = self._executed(node, places) if known else None
        if found is None:
            return [loose(traced)] * int(node.attrs.get("num_split", node.attrs.get("num", 1)))
        return [pool.take(array) for array in found]

    def ends(self, value: Trace) -> None:
        """Ends the tracing of a value: a normalized one implies its typical range."""
        for origin, scale, offset in _distinct(value):
            if (scale, offset) == (1.0, 0.0) or scale == 0 or not np.isfinite([scale, offset]).all():
                continue
            spread = _usual(scale, offset)
            spreads = self.domains[origin].spreads
            if spread not in spreads and len(spreads) < 8:
                spreads.append(spread)

    def body(self, reference: Any) -> Graph | None:
        """The graph of a branch or loop body."""
        if isinstance(reference, Graph):
            return reference
        if reference.name not in self.model.functions or reference.name in self.stack:
            return None
        function = self.model.functions[reference.name]
        return flatten(as_graph(function), self.model.functions, controls=function.control_outputs)


class _Pool:
    """The concatenated elements of several tensors. The first one is padding."""

    def __init__(self) -> None:
        self.parts = [_constant_trace(np.zeros(1))]
        self.count = 1

    def add(self, value: Any) -> Array | None:
        """The positions of the elements of `value`, in its shape."""
        trace = _constant_trace(value) if isinstance(value, np.ndarray) else value
        if not isinstance(trace, Trace):
            return None
        self.parts.append(trace)
        self.count += trace.origin.size
        return np.arange(self.count - trace.origin.size, self.count).reshape(trace.origin.shape)

    def take(self, places: Array) -> Trace:
        origin, scale, offset = (
            np.concatenate([getattr(part, name).reshape(-1) for part in self.parts])[places] for name in _PARTS
        )
        return Trace(origin, scale, offset)


_PARTS = ("origin", "scale", "offset")
HANDED_ON = ("Identity", "ReadVariableOp", "Enter")
_STATEFUL = ("Random", "Stateless", "TensorList", "TensorArray", "Variable", "Assert")


def plain(ids: Array) -> Trace:
    return Trace(ids, np.broadcast_to(1.0, ids.shape), np.broadcast_to(0.0, ids.shape))


def _constant_trace(array: Array) -> Trace:
    values = array.astype(np.float64) if array.dtype.kind in "biuf" else np.full(array.shape, np.nan)
    return Trace(np.full(array.shape, -1), np.zeros(array.shape), values)


def loose(traces: Sequence[Trace]) -> Trace:
    """The distinct elements of several tensors, in no order."""
    found = sorted({item for trace in traces for item in _distinct(trace)})
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return Trace(np.array(columns[0], int), np.array(columns[1], float), np.array(columns[2], float), fixed=False)


def _distinct(trace: Trace) -> list[tuple[int, float, float]]:
    """(origin, scale, offset) of every distinct element that comes from an input."""
    whole = np.stack([getattr(trace, name).reshape(-1).astype(np.float64) for name in _PARTS], -1)
    whole = whole[whole[:, 0] >= 0]
    if len(whole) > 1:
        whole = np.unique(whole, axis=0) if len(whole) <= SMALL else _unique_rows(whole)
    return [(int(origin), float(scale), float(offset)) for origin, scale, offset in whole]


def _unique_rows(whole: Array) -> Array:
    """Like `np.unique`, faster for many rows: compares origins first, which usually suffices."""
    _, first = np.unique(whole[:, 0], return_index=True)
    return whole[first]


def _usual(scale: float, offset: float) -> tuple[float, float]:
    """The range that `scale * x + offset` maps to [-1, 1], or [0, 1] (pixels); if only a mean is subtracted, up to
    twice the mean."""
    if not offset:
        ends = (0.0 if abs(scale) < PIXEL else -1 / scale, 1 / scale)
    elif abs(scale) == 1 and abs(offset) > 1:
        ends = (0.0, -2 * offset / scale)
    else:
        ends = ((-1 - offset) / scale, (1 - offset) / scale)
    return min(ends), max(ends)


def _back(item: Any, scale: float, offset: float) -> Any:
    if isinstance(item, tuple):
        ends = sorted(_back(part, scale, offset) for part in item)
        return tuple(ends)
    if isinstance(item, float) and scale:
        return (item - offset) / scale
    return item


def _as_array(value: Any) -> Array | None:
    if isinstance(value, Sizes):
        items = value.items
        return items.astype(np.int64) if all(isinstance(i, int) for i in items.reshape(-1).tolist()) else None
    if isinstance(value, Constant):
        return to_numpy(value.array)
    return None


def _look_up(reference: str, env: Mapping[str, Any]) -> Any:
    """The result that `reference` names; None if unknown."""
    name, _, rest = reference.partition(":")
    results = env.get(name, [])
    argument, _, index = rest.rpartition(":")
    if isinstance(results, dict):  # by output argument, each a list
        results = results.get(argument, []) if argument else [item for part in results.values() for item in part]
    at = int(index or 0)
    return results[at] if at < len(results) else None


Handler = Callable[[Follower, Node, list[Any]], Any]
HANDLERS: dict[str, Handler] = {}
"""Handlers of ops that input values reach; `porting/samples/domain_rules.py` fills the table."""
MOVES: dict[str, Callable[[int], Sequence[int]]] = {}
"""Ops that only move elements -> which of so many operands have them."""
SAME: set[str] = set()
"""Ops that return their first traced operand elementwise."""
PIECES: set[str] = set()
"""Ops whose results are a different number of the operands' elements, or pieces of them."""
