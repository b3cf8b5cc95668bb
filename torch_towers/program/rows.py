"""Rows: whether each row of an encoder's outputs depends on the same row of its inputs alone, and a large batch in parts.

The values between the ops of a large batch do not fit the processor's caches, and their memory is new to the process at
each op: mapping its pages costs more than the arithmetic. Rows in parts of some megabytes stay in memory that the
allocator keeps. They are computed in parts only where every op is known to keep rows apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_towers.graph.elementwise import ELEMENTWISE
from torch_towers.graph.graph import Node, node_of
from torch_towers.graph.registry import MODULES
from torch_towers.kernels.fast_path import plain, untouched
from torch_towers.program.binding import descend, is_layer, path
from torch_towers.program.cost import each
from torch_towers.program.program import Program, graphs, modules
from torch_towers.program.refusals import KERNEL_ERRORS

PART = 24 << 20
"""Bytes of the largest value of a part: less than what any setting of glibc's allocator keeps (`memory.py`)."""

MANY = 128
"""Rows below which it is not asked whether they are better run in parts."""

ALL = 1 << 62
"""The size of a part that is never reached."""

_SHARE = 4  # an encoder's largest value is at least this many times its outputs
_KEPT = 64  # sizes of inputs for which a part's size is kept
_FEW = 2  # rows of the run that tells the ranks and sizes of values


class Kind(Enum):
    """What the elements along the first axis of a value are."""

    SHARED = "the same for all rows"
    ROWS = "one for each row"
    COUNT = "the number of rows"


class RowParts:
    """Runs an encoder on some rows at a time, where that is faster and nothing can observe it."""

    def __init__(self) -> None:
        self._sizes: dict[Any, int] = {}  # by what the sizes of values depend on

    def __call__(self, encoder: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """`encoder(**inputs)`."""
        rows = _rows(encoder, inputs)
        if rows >= MANY and _as_made(encoder) and (size := self._size(encoder, inputs)) < rows:
            return _run(encoder, inputs, size)
        return encoder(**inputs)

    def _size(self, encoder: Program, inputs: Mapping[str, Any]) -> int:
        """How many rows of such inputs run together."""
        own = tuple(tuple(x.shape[1:]) if isinstance(x, Tensor) else x for x in inputs.values())
        key = encoder.dtype, own
        if key not in self._sizes:
            if len(self._sizes) >= _KEPT:
                self._sizes.clear()
            self._sizes[key] = part_of(encoder, inputs)
        return self._sizes[key]


def part_of(program: Program, inputs: Mapping[str, Any]) -> int:
    """How many rows of such `inputs` run together, at least one; `ALL` where parts would be wrong or no faster."""
    found = memory_of(program, inputs)
    if found is None or found.outputs * _SHARE > found.largest:
        return ALL  # in the latter case most of the memory is that of the result, in parts or not
    weights = sum(value.nbytes for value in program.parameters())  # each part reads them all
    return max(1, int(max(PART, weights) / found.largest))


class Memory(NamedTuple):
    """Bytes per row of the largest value of a node, and of all outputs."""

    largest: float
    outputs: float


def memory_of(program: Program, inputs: Mapping[str, Any]) -> Memory | None:
    """What a row of `inputs` takes; None if rows may depend on others. Runs the first two rows."""
    if len(graphs(program.graph)) > 1:
        return None  # a branch decides for all rows, and a loop may take its time
    by_row = _by_row(program)
    few = {name: value[:_FEW] if name in by_row else value for name, value in inputs.items()}
    kinds = {name: Kind.ROWS if name in by_row else Kind.SHARED for name in inputs}
    sizes = dict.fromkeys(inputs, 0)
    try:
        for node, env in each(program, few):
            found = _kind(program, node, kinds, env)
            if found is None:
                return None
            kinds[node.name], value = found, env[node.name]
            sizes[node.name] = sum(part.nbytes for part in _several(value)) if found is Kind.ROWS else 0
    except KERNEL_ERRORS:  # a graph that needs more rows, or these rows are refused: the whole batch says so
        return None
    given = {node_of(ref) for ref in program.graph.outputs.values()}
    if any(kinds[name] is not Kind.ROWS for name in given):
        return None
    return Memory(max(1, *sizes.values()) / _FEW, sum(sizes[name] for name in given) / _FEW)


def _by_row(program: Program) -> set[str]:
    return {spec.name for spec in program.graph.inputs if spec.shape and spec.shape[0] is None}


def _run(program: Program, inputs: dict[str, Any], size: int) -> dict[str, Any]:
    """The outputs of parts of at most `size` rows, all of nearly the same size."""
    by_row = _by_row(program)
    rows = max(len(inputs[name]) for name in by_row)
    count = -(-rows // size)
    ends = [rows * (i + 1) // count for i in range(count)]
    parts = [
        program(**{**inputs, **{name: inputs[name][start:end] for name in by_row}})
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _rows(program: Any, inputs: Mapping[str, Any]) -> int:
    """The number of rows that may run in parts: 0 if anything could observe it, or where inputs differ in it."""
    if torch.is_grad_enabled() or type(program) is not Program or program.training or not untouched(program, Program):
        return 0
    if not all(isinstance(value, (Tensor, int)) for value in inputs.values()):
        return 0  # lists of tensors
    values = [inputs[name] for name in _by_row(program)]
    if not values or not all(isinstance(x, Tensor) and x.ndim and x.is_cpu for x in values) or not plain(*values):
        return 0
    sizes = {len(value) for value in values}
    return sizes.pop() if len(sizes) == 1 else 0


def _as_made(program: Program) -> bool:
    """Whether every layer is the one that the graph names, without hooks and out of training."""
    for name, spec in modules(program.graph).items():
        kind: Any = MODULES[spec.type].function
        if is_layer(MODULES[spec.type]):
            layer = descend(program, path(name))
            if layer.training or not untouched(layer, kind):
                return False
    return True


@dataclass
class _Call:
    """A node with the kinds and values of its operands, and its result."""

    node: Node
    kinds: list[Kind]
    values: list[Any]
    result: Any
    args: Mapping[str, Any]  # a layer's arguments, or an op's attributes

    def rank(self, i: int = 0) -> int:
        return self.values[i].ndim if isinstance(self.values[i], Tensor) else 0

    def rows(self, i: int = 0) -> bool:
        return self.kinds[i] is Kind.ROWS

    def only_first(self) -> bool:
        """Whether the first operand alone has rows, beside an axis or more."""
        return self.rows() and all(kind is Kind.SHARED for kind in self.kinds[1:])

    def aligned(self, i: int, rank: int) -> bool:
        """Whether operand `i` broadcasts to a value of rows of this rank row by row."""
        if self.rows(i):
            return self.rank(i) == rank
        return self.kinds[i] is Kind.SHARED and (self.rank(i) < rank or len(self.values[i]) == 1)


def _kind(program: Program, node: Node, kinds: Mapping[str, Kind], env: Mapping[str, Any]) -> Kind | None:
    """The kind of a node's result, None if its rows may depend on others."""
    flat = list(_flat(node.inputs))
    of = [kinds[node_of(ref)] if isinstance(ref, str) else Kind.SHARED for ref in flat]
    if all(kind is Kind.SHARED for kind in of):
        return Kind.SHARED
    spec = program.graph.modules[str(node.attrs["module"])] if node.op == "module" else None
    values = [_value(env, ref) if isinstance(ref, str) else ref for ref in flat]
    key, args = (spec.type, spec.args) if spec is not None else (node.op, node.attrs)
    call = _Call(node, of, values, env[node.name], args)
    if key == "size":
        return Kind.COUNT if call.args["axis"] % call.rank() == 0 else Kind.SHARED
    rule = _RULES.get(key)
    if rule is None or not rule(call):
        return None
    whole = all(isinstance(part, Tensor) and part.ndim and len(part) == _FEW for part in _several(call.result))
    return Kind.ROWS if whole else None


def _flat(operands: tuple[Any, ...]) -> Iterable[Any]:
    for operand in operands:
        if isinstance(operand, tuple):
            yield from _flat(operand)  # type: ignore[reportUnknownArgumentType]
        else:
            yield operand


def _value(env: Mapping[str, Any], ref: str) -> Any:
    name, _, index = ref.partition(":")
    return env[name][int(index)] if index else env[name]


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)  # type: ignore[reportUnknownArgumentType]


_RULES: dict[str, Callable[[_Call], bool]] = {}
"""Whether an op or layer keeps rows apart, given its operands; what is not here may not."""


def _rule(*names: str) -> Callable[[Callable[[_Call], bool]], Callable[[_Call], bool]]:
    def add(function: Callable[[_Call], bool]) -> Callable[[_Call], bool]:
        _RULES.update(dict.fromkeys(names, function))
        return function

    return add


@_rule(*ELEMENTWISE)
def _elementwise(call: _Call) -> bool:
    rank = max(call.rank(i) for i in range(len(call.values)))
    return all(call.aligned(i, rank) for i in range(len(call.values)))


@_rule(
    "Linear", "BatchNorm", "GroupNorm", "PReLU", "Upsample", "ZeroPadding",
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "MaxPool1d", "MaxPool2d",
    "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "CategoryEncoding", "softmax", "log_softmax",
    "conv", "max_pool", "avg_pool", "resize_bilinear", "resize_nearest", "resize_bicubic", "extract_patches",
)  # fmt: skip
def _first_axis_is_the_batch(call: _Call) -> bool:
    """One operand, whose other axes alone are mixed."""
    return call.only_first() and call.rank() >= 2


@_rule("Embedding", "Normalization", "Rescaling", "Discretization")
def _of_each_number(call: _Call) -> bool:
    return call.only_first()


@_rule("LayerNorm", "ShiftedLayerNorm", "RMSNorm", "OffsetRMSNorm")
def _normalized(call: _Call) -> bool:
    return call.only_first() and call.rank() > len(call.args.get("normalized_shape", (0,)))


@_rule("MultiHeadAttention", "Attention", "AdditiveAttention")
def _attention_layer(call: _Call) -> bool:
    """Queries, keys and values of rows; a mask of rows, or one for all."""
    mask = call.values[3] if len(call.values) > 3 else None
    return all(map(call.rows, range(3))) and (mask is None or call.rows(3) or len(mask) == 1)


@_rule("GRU", "LSTM", "SimpleRNN", "ConcatGRU", "MaskedAverage", "weighted_sum", "DotInteraction")  # fmt: skip
def _all_by_row(call: _Call) -> bool:
    """Operands of rows each, or none: values, masks, states."""
    given = [i for i, value in enumerate(call.values) if value is not None]
    return all(call.rows(i) for i in given) and call.rank() >= 2


@_rule("attention")
def _attention(call: _Call) -> bool:
    rank = call.rank()
    by_row = rank >= 3 and all(call.rows(i) and call.rank(i) == rank for i in range(3))
    return by_row and all(call.values[i] is None or call.aligned(i, rank) for i in range(3, len(call.values)))


@_rule("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "reduce_any", "reduce_all", "euclidean_norm",
       "squeeze", "flip", "argmax", "argmin", "cumsum", "cumprod", "chunk", "split_sizes", "slice", "select", "narrow",
       "unstack", "repeat_each", "bias_add", "L2Normalize", "GlobalAveragePooling", "GlobalMaxPooling")  # fmt: skip
def _along_other_axes(call: _Call) -> bool:
    rank = call.rank()
    return call.only_first() and 0 not in {axis % rank for axis in _axes(call, rank)}


def _axes(call: _Call, rank: int) -> Iterable[int]:
    axes = call.args.get("axes", call.args.get("axis"))
    return range(rank) if axes is None else (axes,) if isinstance(axes, int) else axes


@_rule("concat")
def _concat(call: _Call) -> bool:
    return all(map(call.rows, range(len(call.values)))) and call.args["axis"] % call.rank() != 0


@_rule("stack")
def _stack(call: _Call) -> bool:
    return all(map(call.rows, range(len(call.values)))) and call.args["axis"] % (call.rank() + 1) != 0


@_rule("unsqueeze")
def _unsqueeze(call: _Call) -> bool:
    return call.args["axis"] % (call.rank() + 1) != 0


@_rule("one_hot")
def _one_hot(call: _Call) -> bool:
    return call.only_first() and call.args["axis"] % (call.rank() + 1) != 0


@_rule("transpose")
def _transpose(call: _Call) -> bool:
    return call.args["perm"][0] == 0


@_rule("matrix_transpose", "band_part")
def _matrices(call: _Call) -> bool:
    return call.only_first() and call.rank() >= 3


@_rule("split_last")
def _split_last(call: _Call) -> bool:
    return call.rank() >= 2


@_rule("join_last")
def _join_last(call: _Call) -> bool:
    return call.rank() > call.args["count"]


@_rule("pad")
def _pad(call: _Call) -> bool:
    return call.only_first() and [ref for ref in call.node.inputs[2:4] if type(ref) is int] == [0, 0]


@_rule("tile")
def _tile(call: _Call) -> bool:
    """Rows repeated along other axes, or what all rows share repeated for each."""
    if call.rows():
        return call.only_first() and call.node.inputs[1] == 1 and type(call.node.inputs[1]) is int
    others = all(kind is Kind.SHARED for kind in call.kinds[2:])
    return call.kinds[:2] == [Kind.SHARED, Kind.COUNT] and others and len(call.values[0]) == 1


@_rule("reshape")
def _reshape(call: _Call) -> bool:
    """The number of rows stays, by name or as what is left over, and so do the numbers of each."""
    first = call.kinds[1] is Kind.COUNT or call.node.inputs[1] == -1
    others = all(kind is Kind.SHARED for kind in call.kinds[2:])
    return call.rows() and first and others and prod(call.result.shape[1:]) == prod(call.values[0].shape[1:])


@_rule("broadcast_to")
def _broadcast_to(call: _Call) -> bool:
    counted = call.kinds[1] is Kind.COUNT and all(kind is Kind.SHARED for kind in call.kinds[2:])
    return counted and (not isinstance(call.values[0], Tensor) or call.aligned(0, call.result.ndim))


@_rule("matmul")
def _matmul(call: _Call) -> bool:
    """Rows times a matrix, or matrices of each row."""
    a, b = call.rank(0), call.rank(1)
    if call.rows(0) and call.rows(1):
        return a == b >= 3
    return (a >= 2 and b == 2) if call.rows(0) else (b >= 3 and a == 2)


@_rule("einsum", "EinsumDense")
def _einsum(call: _Call) -> bool:
    """One letter is that of the rows in all operands that have them, in no other, and first in the result."""
    left, _, right = str(call.args["equation"]).replace(" ", "").replace("...", ".").partition("->")
    terms = left.split(",")
    if not right or "." in right[1:] or len(terms) < len(call.kinds) or any("." in term[1:] for term in terms):
        return False
    of = [*call.kinds, *[Kind.SHARED] * (len(terms) - len(call.kinds))]  # a layer has its weight beside
    by_row = [term for term, kind in zip(terms, of, strict=True) if kind is Kind.ROWS]
    apart = all(term.startswith(right[0]) and right[0] not in term[1:] for term in by_row)
    ranks = right[0] != "." or all(call.rank(i) >= len(terms[i]) for i in range(len(call.kinds)) if call.rows(i))
    others = [term for term, kind in zip(terms, of, strict=True) if kind is not Kind.ROWS]
    return apart and ranks and not any(right[0] in term for term in others) and right[0] not in right[1:]


@_rule("gather")
def _gather(call: _Call) -> bool:
    axis, both = call.args.get("axis", 0), call.args.get("batch_dims", 0)
    if call.rows(0) and call.rows(1):
        return both >= 1 and axis % call.rank() != 0
    if call.rows(0):
        return not both and axis % call.rank() != 0
    return not both and axis == 0
