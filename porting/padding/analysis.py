"""Decides by dataflow which inputs of an encoder may be truncated to the row length, and builds the encoder that takes
them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from porting.conversion.values import Value
from porting.padding.places import LOW, WHOLE, DependsError, Marked, Places
from porting.padding.rules import EITHER_WAY, RULES, Call
from torch_towers.graph.dtypes import TORCH_DTYPES
from torch_towers.graph.graph import Graph, Node, node_of, references
from torch_towers.graph.names import numbered
from torch_towers.graph.spec import Padding
from torch_towers.program.program import Program
from torch_towers.program.sketch import sketch

_ROWS = 7  # rows of the run that infers shapes
_FREE = 11
_WORK = frozenset(
    {
        "matmul",
        "einsum",
        "attention",
        "Linear",
        "EinsumDense",
        "MultiHeadAttention",
        "GRU",
        "LSTM",
        "SimpleRNN",
        "ConcatGRU",
    }
)
"""Layers whose cost per position makes truncation worthwhile. Averages of embeddings are too cheap."""


@dataclass(frozen=True)
class Found:
    """The encoder for truncated rows, how to find the end of a row, and why other inputs are not truncated."""

    encoder: Graph
    padding: tuple[Padding, ...]
    refused: tuple[str, ...]


def find(encoder: Graph, store: Mapping[str, Any], known: Mapping[str, Value]) -> Found:
    """Every mask of an encoder that makes outputs independent of padding. `known` are the values inferred so far."""
    found: list[Padding] = []
    refused: dict[str, str] = {}
    taken: set[str] = set()
    values = _Values(encoder, store, known)
    for name, value, inputs in _candidates(encoder):
        if name in taken or taken & set(inputs):
            continue
        try:
            encoder, padding = _tried(encoder, values, name, value, inputs)
        except DependsError as error:
            refused.setdefault(name, str(error))
            continue
        values = _Values(encoder, store, {})  # rows are shorter now
        found.append(padding)
        taken |= set(padding.along)
    said = tuple(f"padding: of {name!r}: {why}" for name, why in refused.items() if name not in taken)
    return Found(encoder, tuple(found), said)


def _candidates(encoder: Graph) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Inputs `[rows, length]` that may be a mask or ids, the padding value, and the inputs that may be truncated along
    with each."""
    sized = {spec.name: spec.shape[1] for spec in encoder.inputs if spec.shape is not None and _is_sequence(spec)}
    for name in sized:
        marks = _compared(encoder, name) or ([0] if _is_mask(encoder, name) else [])
        same = tuple(other for other, size in sized.items() if size == sized[name])
        for value in marks:
            if len(same) > 1:
                yield name, value, same
            yield name, value, (name,)


def _is_sequence(spec: Any) -> bool:
    """Whether an input is numeric, `[rows, length, ...]`, with a fixed length."""
    shape = spec.shape
    return (
        shape is not None and len(shape) >= 2 and shape[0] is None and isinstance(shape[1], int) and shape[1] > 1
        and spec.dtype in TORCH_DTYPES
    )  # fmt: skip


def _compared(encoder: Graph, name: str) -> list[Any]:
    """The numbers that an input is compared with: the padding id of a mask."""
    return list(dict.fromkeys(
        number for node in encoder.nodes if node.op in ("equal", "not_equal") and name in node.inputs
        for number in node.inputs if isinstance(number, (bool, int, float))
    ))  # fmt: skip


def _is_mask(encoder: Graph, name: str) -> bool:
    """Whether an input is used other than as ids of a table."""
    spec = next(spec for spec in encoder.inputs if spec.name == name)
    tables = [node for node in encoder.nodes if name in references(node.inputs) and node.op in ("module", "gather")]
    users = [node for node in encoder.nodes if name in references(node.inputs)]
    return len(spec.shape or ()) == 2 and len(users) > len(tables)


def _tried(encoder: Graph, values: _Values, name: str, value: Any, inputs: tuple[str, ...]) -> tuple[Graph, Padding]:
    """The encoder for rows truncated where `name` is `value`. `DependsError` if an output may change."""
    whole = next(int(spec.shape[1]) for spec in encoder.inputs if spec.name == name and spec.shape)  # type: ignore[arg-type]
    run = _Run(encoder, values, name, whole)
    for spec in encoder.inputs:
        if spec.name in inputs:
            marks = spec.name == name
            run.env[spec.name] = Places({1: value if marks else None}, Marked(value) if marks else None)
    for node in encoder.nodes:
        run.visit(node)
    outputs = {out: run.places(ref) for out, ref in encoder.outputs.items()}
    proven = tuple(out for out, places in outputs.items() if not places.axes and not places.is_length)
    if not proven:
        raise DependsError("every output has the row's positions")
    if not run.shortened:
        raise DependsError("no layer multiplies its positions, so skipping them saves little")
    return replace(encoder, nodes=run.written()), Padding(name, value, inputs, proven)


class _Values:
    """The shapes and constants of an encoder. What is not `known` is inferred once for all masks, and only if one asks."""

    def __init__(self, encoder: Graph, store: Mapping[str, Any], known: Mapping[str, Value]) -> None:
        self._encoder, self._store, self._known = encoder, store, known
        inputs = [known[spec.name].shape for spec in encoder.inputs if spec.name in known]
        self._rows = {shape[0] for shape in inputs if shape}  # the symbols of numbers of rows

    @cached_property
    def _sketched(self) -> dict[str, Any]:
        given = {spec.name: _made_up(spec) for spec in self._encoder.inputs}
        return sketch(Program(self._encoder, self._store), given)

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        return {node.name: node for node in self._encoder.nodes}

    def shape(self, ref: Any) -> tuple[int, ...] | None:
        """The shape of an operand, None if it is not known."""
        if not isinstance(ref, str):
            return () if isinstance(ref, (bool, int, float)) else None
        inferred = self._inferred(ref)
        if inferred is not None:
            return inferred
        name, _, index = ref.partition(":")
        value = self._sketched.get(name)
        if type(value) is tuple:
            value = value[int(index or 0)] if int(index or 0) < len(value) else None  # type: ignore[reportUnknownVariableType]
        if isinstance(value, int):
            return ()
        return tuple(value.shape) if isinstance(value, Tensor) else None

    def _inferred(self, ref: str) -> tuple[int, ...] | None:
        """The known shape of a value, if only its number of rows is free."""
        shape = self._known[ref].shape if ref in self._known and self._known[ref].dtype != "size" else None
        sizes = [_ROWS if i == 0 and size in self._rows else size for i, size in enumerate(shape or ())]
        found = tuple(size for size in sizes if isinstance(size, int))
        return found if shape is not None and len(found) == len(shape) else None

    def constant(self, ref: Any) -> Any:
        """The constant that an operand is, None if it is none."""
        node = self._nodes.get(ref) if isinstance(ref, str) else None
        return self._store[str(node.attrs["tensor"])] if node is not None and node.op == "constant" else None

    def number(self, ref: Any) -> Any:
        """The number if an operand is a splat."""
        if isinstance(ref, (bool, int, float)):
            return ref
        value = self.constant(ref)
        if isinstance(value, Tensor) and value.numel() and not value.is_complex():
            first = value.reshape(-1)[0]
            return first.item() if bool((value == first).all()) else None
        node = self._nodes.get(ref) if isinstance(ref, str) else None
        return self.number(node.inputs[0]) if node is not None and node.op == "broadcast_to" else None


class _Run:
    """One pass over the nodes of an encoder."""

    def __init__(self, encoder: Graph, values: _Values, name: str, whole: int) -> None:
        self.encoder, self.values, self.whole = encoder, values, whole
        self.env: dict[str, Places] = {spec.name: WHOLE for spec in encoder.inputs}
        self.taken = {spec.name for spec in encoder.inputs} | {node.name for node in encoder.nodes}
        self.length = self._unique("length")
        self.nodes: list[Node] = [Node(self.length, "size", (name,), {"axis": 1})]
        self.cuts: dict[tuple[Any, int], str] = {}
        self.shortened = False  # whether a layer or product has fewer positions to compute

    def visit(self, node: Node) -> None:
        """Derives what is known of a node, and rewrites it for truncated rows."""
        operands = node.inputs
        flat = [(ref,) if not isinstance(ref, tuple) else ref for ref in operands]
        parts = [_joined([self.places(item) for item in items]) for items in flat]
        if not any(part.axes or part.is_length for part in parts):
            self.env[node.name] = WHOLE
            self.nodes.append(node)
            return
        spec = self.encoder.modules.get(str(node.attrs.get("module"))) if node.op == "module" else None
        key = spec.type if spec is not None else node.op
        if key not in RULES or any(isinstance(ref, tuple) for ref in operands):
            raise DependsError(f"{node.name!r} ({key}) is not known to ignore padding")
        call = Call(
            node, parts, [self.values.shape(ref) for ref in operands], [self.values.number(ref) for ref in operands],
            self.values.shape(node.name), list(operands), self.length, self.whole, spec.args if spec is not None else {}, self._cut,
        )  # fmt: skip
        if any(part.axes and shape is None for part, shape in zip(parts, call.shapes, strict=True)):
            raise DependsError(f"{node.name!r} ({key}): the shape of its operand is not known")
        if any(part.is_length for part in parts) and key not in (
            "reshape",
            "broadcast_to",
            "slice",
            "PositionEmbedding",
        ):
            raise DependsError(f"{node.name!r} ({key}): it computes with the length of rows")
        if key not in EITHER_WAY:
            call.in_order()
        try:
            found = RULES[key](call)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # unexpected operands
            raise DependsError(f"{node.name!r} ({key}): its call has an unsupported form") from error
        self.shortened |= key in _WORK and bool(call.parts[0].axes)
        self.env[node.name] = replace(found, low=found.low or self._is_low(call))
        self.nodes.append(replace(node, inputs=tuple(call.inputs)))

    def places(self, ref: Any) -> Places:
        """The known facts of an operand."""
        return self.env.get(node_of(ref), WHOLE) if isinstance(ref, str) else WHOLE

    def written(self) -> tuple[Node, ...]:
        """The nodes, including the number of positions if it is used."""
        used = {name for node in self.nodes[1:] for name in map(node_of, references(node.inputs))}
        return tuple(self.nodes if self.length in used else self.nodes[1:])

    def _cut(self, ref: Any, axis: int) -> str:
        """`ref`, sliced along an axis to the number of positions of the rows."""
        if (ref, axis) not in self.cuts:
            name = self.cuts[ref, axis] = self._unique(f"{node_of(ref)}.cut".removesuffix(".cut.cut"))
            self.nodes.append(Node(name, "slice", (ref, 0, self.length), {"axis": axis, "step": 1}))
        return self.cuts[ref, axis]

    def _unique(self, wanted: str) -> str:
        name = numbered(wanted, self.taken.__contains__)
        self.taken.add(name)
        return name

    def _is_low(self, call: Call) -> bool:
        """Whether an added constant has low values somewhere, such as a causal mask."""
        if call.node.op not in ("add", "sub", "where", "minimum"):
            return False
        values = [
            self.values.constant(ref)
            for ref, number in zip(call.node.inputs, call.numbers, strict=True)
            if number is None
        ]
        return any(isinstance(v, Tensor) and v.is_floating_point() and bool((v.abs() >= -LOW).any()) for v in values)


def _joined(parts: list[Places]) -> Places:
    return next((part for part in parts if part.axes or part.is_length), WHOLE)


def _made_up(spec: Any) -> Tensor:
    shape = [_ROWS if i == 0 and n is None else _FREE if n is None else n for i, n in enumerate(spec.shape or ())]
    return torch.empty(shape, dtype=TORCH_DTYPES.get(spec.dtype, torch.float32), device="meta")
