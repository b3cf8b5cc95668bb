"""Which ops and layers keep rows apart: what each row of the result is depends on the same row of the operands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from torch import Tensor

from torch_towers.graph.elementwise import ELEMENTWISE
from torch_towers.graph.graph import Graph, Node, node_of, references
from torch_towers.program.binding import Env, getter


class Kind(Enum):
    """What the elements along the first axis of a value are."""

    SHARED = "the same for all rows"
    ROWS = "one for each row"
    COUNT = "the number of rows"


@dataclass
class Call:
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


def kind_of(graph: Graph, node: Node, kinds: Mapping[str, Kind], env: Env, rows: int) -> Kind | None:
    """The kind of a node's result in a run of `rows` rows, None if its rows may depend on others."""
    if all(kinds[node_of(ref)] is Kind.SHARED for ref in references(node.inputs)):
        return Kind.SHARED
    if any(isinstance(operand, tuple) for operand in node.inputs):
        return None
    of = [kinds[node_of(ref)] if isinstance(ref, str) else Kind.SHARED for ref in node.inputs]
    spec = graph.modules[str(node.attrs["module"])] if node.op == "module" else None
    key, args = (spec.type, spec.args) if spec is not None else (node.op, node.attrs)
    call = Call(node, of, [getter(operand)(env) for operand in node.inputs], env[node.name], args)
    if key == "size":
        return Kind.COUNT if call.args["axis"] % call.rank() == 0 else Kind.SHARED
    rule = _RULES.get(key)
    if rule is None or not rule(call):
        return None
    whole = all(isinstance(part, Tensor) and part.ndim and len(part) == rows for part in several(call.result))
    return Kind.ROWS if whole else None


def several(value: Any) -> tuple[Any, ...]:
    """A node's results: those of a tuple, or the only one."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)  # type: ignore[reportUnknownArgumentType]


_RULES: dict[str, Callable[[Call], bool]] = {}
"""Whether an op or layer keeps rows apart, given its operands; what is not here may not."""


def _rule(*names: str) -> Callable[[Callable[[Call], bool]], Callable[[Call], bool]]:
    def add(function: Callable[[Call], bool]) -> Callable[[Call], bool]:
        _RULES.update(dict.fromkeys(names, function))
        return function

    return add


@_rule(*ELEMENTWISE)
def _elementwise(call: Call) -> bool:
    rank = max(call.rank(i) for i in range(len(call.values)))
    return all(call.aligned(i, rank) for i in range(len(call.values)))


@_rule(
    "Linear", "BatchNorm", "GroupNorm", "PReLU", "Upsample", "ZeroPadding",
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "MaxPool1d", "MaxPool2d",
    "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "CategoryEncoding", "softmax", "log_softmax",
    "conv", "max_pool", "avg_pool", "resize_bilinear", "resize_nearest", "resize_bicubic", "extract_patches",
    "local_response_norm", "space_to_depth", "depth_to_space",
)  # fmt: skip
def _first_axis_is_the_batch(call: Call) -> bool:
    """One operand, whose other axes alone are mixed."""
    return call.only_first() and call.rank() >= 2


@_rule("Embedding", "Normalization", "Rescaling", "Discretization")
def _of_each_number(call: Call) -> bool:
    return call.only_first()


@_rule("LayerNorm", "ShiftedLayerNorm", "RMSNorm", "OffsetRMSNorm")
def _normalized(call: Call) -> bool:
    return call.only_first() and call.rank() > len(call.args.get("normalized_shape", (0,)))


@_rule("MultiHeadAttention", "Attention", "AdditiveAttention")
def _attention_layer(call: Call) -> bool:
    """Queries, keys and values of rows; a mask of rows, or one for all."""
    mask = call.values[3] if len(call.values) > 3 else None
    return all(map(call.rows, range(3))) and (mask is None or call.rows(3) or len(mask) == 1)


@_rule("GRU", "LSTM", "SimpleRNN", "ConcatGRU", "ConvLSTM", "MaskedAverage", "weighted_sum", "DotInteraction")
def _all_by_row(call: Call) -> bool:
    """Operands of rows each, or none: values, masks, states."""
    given = [i for i, value in enumerate(call.values) if value is not None]
    return all(call.rows(i) for i in given) and call.rank() >= 2


@_rule("attention")
def _attention(call: Call) -> bool:
    rank = call.rank()
    by_row = rank >= 3 and all(call.rows(i) and call.rank(i) == rank for i in range(3))
    return by_row and all(call.values[i] is None or call.aligned(i, rank) for i in range(3, len(call.values)))


@_rule("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "reduce_any", "reduce_all", "euclidean_norm",
       "squeeze", "flip", "argmax", "argmin", "cumsum", "cumprod", "chunk", "split_sizes", "slice", "select", "narrow",
       "unstack", "repeat_each", "bias_add", "batch_norm", "L2Normalize", "GlobalAveragePooling", "GlobalMaxPooling")  # fmt: skip
def _along_other_axes(call: Call) -> bool:
    rank = call.rank()
    return call.only_first() and 0 not in {axis % rank for axis in _axes(call, rank)}


def _axes(call: Call, rank: int) -> Iterable[int]:
    axes = call.args.get("axes", call.args.get("axis"))
    return range(rank) if axes is None else (axes,) if isinstance(axes, int) else axes


@_rule("concat")
def _concat(call: Call) -> bool:
    return all(map(call.rows, range(len(call.values)))) and call.args["axis"] % call.rank() != 0


@_rule("stack")
def _stack(call: Call) -> bool:
    return all(map(call.rows, range(len(call.values)))) and call.args["axis"] % (call.rank() + 1) != 0


@_rule("unsqueeze")
def _unsqueeze(call: Call) -> bool:
    return call.args["axis"] % (call.rank() + 1) != 0


@_rule("one_hot")
def _one_hot(call: Call) -> bool:
    return call.only_first() and call.args["axis"] % (call.rank() + 1) != 0


@_rule("transpose")
def _transpose(call: Call) -> bool:
    return call.args["perm"][0] == 0


@_rule("matrix_transpose", "band_part")
def _matrices(call: Call) -> bool:
    return call.only_first() and call.rank() >= 3


@_rule("split_last")
def _split_last(call: Call) -> bool:
    return call.rank() >= 2


@_rule("join_last")
def _join_last(call: Call) -> bool:
    return call.rank() > call.args["count"]


@_rule("fft", "rfft", "irfft")
def _spectrum(call: Call) -> bool:
    return call.only_first() and call.rank() > call.args["rank"]


@_rule("pad")
def _pad(call: Call) -> bool:
    return call.only_first() and [ref for ref in call.node.inputs[2:4] if type(ref) is int] == [0, 0]


@_rule("tile")
def _tile(call: Call) -> bool:
    """Rows repeated along other axes, or what all rows share repeated for each."""
    if call.rows():
        return call.only_first() and call.node.inputs[1] == 1 and type(call.node.inputs[1]) is int
    others = all(kind is Kind.SHARED for kind in call.kinds[2:])
    return call.kinds[:2] == [Kind.SHARED, Kind.COUNT] and others and len(call.values[0]) == 1


@_rule("reshape")
def _reshape(call: Call) -> bool:
    """The number of rows stays, by name or as what is left over, and so do the numbers of each."""
    first = call.kinds[1] is Kind.COUNT or call.node.inputs[1] == -1
    others = all(kind is Kind.SHARED for kind in call.kinds[2:])
    return call.rows() and first and others and prod(call.result.shape[1:]) == prod(call.values[0].shape[1:])


@_rule("broadcast_to")
def _broadcast_to(call: Call) -> bool:
    counted = call.kinds[1] is Kind.COUNT and all(kind is Kind.SHARED for kind in call.kinds[2:])
    return counted and (not isinstance(call.values[0], Tensor) or call.aligned(0, call.result.ndim))


@_rule("matmul")
def _matmul(call: Call) -> bool:
    """Rows times a matrix, or matrices of each row."""
    a, b = call.rank(0), call.rank(1)
    if call.rows(0) and call.rows(1):
        return a == b >= 3
    return (a >= 2 and b == 2) if call.rows(0) else (b >= 3 and a == 2)


@_rule("einsum", "EinsumDense")
def _einsum(call: Call) -> bool:
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
def _gather(call: Call) -> bool:
    axis, both = call.args.get("axis", 0), call.args.get("batch_dims", 0)
    if call.rows(0) and call.rows(1):
        return both >= 1 and axis % call.rank() != 0
    if call.rows(0):
        return not both and axis % call.rank() != 0
    return not both and axis == 0
