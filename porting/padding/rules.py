"""Transfer rules: how positions after the end of a row pass through ops and layers. Anything else keeps padding
computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

from porting.padding.places import LOW, WHOLE, DependsError, Places, elementwise
from torch_towers.graph.elementwise import ELEMENTWISE
from torch_towers.graph.graph import Node

EITHER_WAY = ELEMENTWISE | {
    "unsqueeze",
    "squeeze",
    "transpose",
    "flip",
    "Linear",
    "EinsumDense",
    "LayerNorm",
    "ShiftedLayerNorm",
    "RMSNorm",
    "L2Normalize",
}
"""Ops that accept reversed positions."""


@dataclass
class Call:
    """A node with the known facts of its operands, and what a rule needs to rewrite it for truncated rows.

    Of `add(x, positions)`, `x` [n, 64, 8] being ids' vectors whose rows are cut and `positions` [64, 8] a weight: `parts` are the places
    of `x` along axis 1 and WHOLE, `whole` is 64. The rule of `add` calls `needs(1, -2)`, which puts `slice(positions, 0, length)` into
    `inputs[1]`; then both operands have as many places as the row, and what `add` gives has them along axis 1.

    `shapes` are those of whole rows, None for what is no tensor. `inputs` are the operands as they will be written; `length` is the
    reference to the number of places, `whole` that of whole rows.
    """

    node: Node
    parts: list[Places]
    shapes: list[tuple[int, ...] | None]
    numbers: list[Any]
    result: tuple[int, ...] | None
    inputs: list[Any]
    length: str
    whole: int
    args: Mapping[str, Any]
    cut: Callable[[Any, int], str]  # slices an operand along an axis

    def depends(self, why: str) -> DependsError:
        return DependsError(f"{self.node.name!r} ({self.node.op}): {why}")

    def rank(self, i: int) -> int:
        return len(self.shapes[i] or ())

    def part(self, i: int) -> Places:
        """The facts of an operand that must exist."""
        return self.parts[i] if i < len(self.parts) else WHOLE

    def along(self, i: int, axis: int) -> bool:
        """Whether an axis (negative: from the end) of an operand is over the row's positions."""
        return i < len(self.parts) and axis % max(self.rank(i), 1) in self.parts[i].axes

    def needs(self, i: int, axis: int) -> None:
        """Slices operand `i`, which is the same in both runs, along an axis on which others are truncated."""
        shape = self.shapes[i]
        if shape is None or not -len(shape) <= axis < len(shape) or shape[axis] == 1 or self.along(i, axis):
            return
        self.in_order()
        if shape[axis] != self.whole:
            raise self.depends(f"an operand of shape {list(shape)} does not match truncated rows")
        axis %= len(shape)
        self.inputs[i] = self.cut(self.inputs[i], axis)
        self.parts[i] = replace(self.parts[i], axes={**self.parts[i].axes, axis: self.numbers[i]})

    def in_order(self) -> None:
        """Refuses reversed positions."""
        if any(part.backwards for part in self.parts):
            raise self.depends("its positions are reversed")

    def literal(self, i: int) -> None:
        """Replaces operand `i`, if it is the number of positions of whole rows, by that of the current rows."""
        if self.inputs[i] == self.whole and type(self.inputs[i]) is int:
            self.inputs[i] = self.length
        elif self.inputs[i] != -1 and not self.part(i).is_length:
            raise self.depends("a size is computed from the length of whole rows")


Rule = Callable[[Call], Places]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers the rule of ops and layer types."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return add


def _aligned(call: Call, operands: Sequence[int]) -> None:
    """Slices whole operands along every axis on which another is truncated, with axes aligned from the last."""
    places = {axis - call.rank(i) for i in operands for axis in call.part(i).axes}
    for i in operands:
        for axis in places:
            call.needs(i, axis)


def _broadcast(call: Call) -> Places:
    if len([part for part in call.parts if part.axes]) > 1:
        call.in_order()
    _aligned(call, range(len(call.parts)))
    found = elementwise(call.node, call.parts, [call.rank(i) for i in range(len(call.parts))], call.numbers)
    return replace(found, backwards=any(part.backwards for part in call.parts))


for _op in ELEMENTWISE:
    RULES[_op] = _broadcast


def _moved(part: Places, axes: Mapping[int, int]) -> Places:
    """The axes of positions after an op that moves axes."""
    return replace(part, axes={axes[axis]: off for axis, off in part.axes.items()})


@rule("unsqueeze")
def _unsqueeze(call: Call) -> Places:
    new = call.node.attrs["axis"] % (call.rank(0) + 1)
    return _moved(call.parts[0], {axis: axis + (axis >= new) for axis in range(call.rank(0))})


@rule("squeeze")
def _squeeze(call: Call) -> Places:
    gone = {axis % call.rank(0) for axis in call.node.attrs["axes"]}
    kept = [axis for axis in range(call.rank(0)) if axis not in gone]
    if gone & set(call.parts[0].axes):
        raise call.depends("it removes the axis of positions")
    return _moved(call.parts[0], {axis: i for i, axis in enumerate(kept)})


@rule("transpose")
def _transpose(call: Call) -> Places:
    return _moved(call.parts[0], {axis: i for i, axis in enumerate(call.node.attrs["perm"])})


@rule("matrix_transpose")
def _matrix_transpose(call: Call) -> Places:
    rank = call.rank(0)
    return _moved(call.parts[0], {**{i: i for i in range(rank)}, rank - 2: rank - 1, rank - 1: rank - 2})


@rule("split_last", "join_last")
def _last_axes(call: Call) -> Places:
    count = call.node.attrs.get("count", 1)
    if any(axis >= call.rank(0) - count for axis in call.parts[0].axes):
        raise call.depends("it splits or merges the axis of positions")
    return replace(call.parts[0], on=None)


@rule("reshape")
def _reshape(call: Call) -> Places:
    shape, result, part = call.shapes[0] or (), call.result or (), call.parts[0]
    axes: dict[int, int] = {}
    for axis in part.axes:
        fits = (i for i, n in enumerate(result) if n == shape[axis] and prod(result[:i]) == prod(shape[:axis]))
        place = next(fits, None)
        if place is None:
            raise call.depends("it merges positions with other axes")
        call.literal(place + 1)
        axes[axis] = place
    return _moved(part, axes)


@rule("broadcast_to")
def _broadcast_to(call: Call) -> Places:
    added = len(call.result or ()) - call.rank(0)
    for axis in call.parts[0].axes:
        call.literal(axis + added + 1)
    return _moved(call.parts[0], {axis: axis + added for axis in call.parts[0].axes})


@rule("slice")
def _slice(call: Call) -> Places:
    axis, part = call.node.attrs["axis"] % call.rank(0), call.parts[0]
    start, stop = call.node.inputs[1], call.node.inputs[2]
    if axis not in part.axes:
        return part
    if start not in (0, None) or call.node.attrs.get("step", 1) != 1:
        raise call.depends("it takes positions not counted from the first")
    if stop == 1:  # the first position, which every row has
        return replace(part, axes={other: off for other, off in part.axes.items() if other != axis})
    if stop is not None and (not isinstance(stop, int) or stop < call.whole) and not call.part(2).is_length:
        raise call.depends("it takes some of the positions")
    return part


@rule("select")
def _select(call: Call) -> Places:
    axis, part = call.node.attrs["axis"] % call.rank(0), call.parts[0]
    if axis in part.axes and call.node.inputs[1] != 0:
        raise call.depends("it takes a position other than the first")
    return replace(part, axes={i - (i > axis): off for i, off in part.axes.items() if i != axis})


@rule("flip")
def _flip(call: Call) -> Places:
    turned = {axis % call.rank(0) for axis in call.node.attrs["axes"]} & set(call.parts[0].axes)
    if turned and len(call.parts[0].axes) > 1:
        raise call.depends("it reverses one of two axes of positions")
    return replace(call.parts[0], backwards=call.parts[0].backwards != bool(turned))


@rule("chunk", "split_sizes")
def _split(call: Call) -> Places:
    if call.node.attrs["axis"] % call.rank(0) in call.parts[0].axes:
        raise call.depends("it splits the axis of positions")
    return replace(call.parts[0], on=None)


@rule("concat")
def _concat(call: Call) -> Places:
    axis = call.node.attrs["axis"] % call.rank(0)
    if any(axis in part.axes for part in call.parts):
        raise call.depends("it concatenates positions with others")
    _aligned(call, range(len(call.parts)))
    return Places({axis: None for part in call.parts for axis in part.axes}, low=any(part.low for part in call.parts))


@rule("stack")
def _stack(call: Call) -> Places:
    axis = call.node.attrs["axis"] % (call.rank(0) + 1)
    _aligned(call, range(len(call.parts)))
    return Places({i + (i >= axis): None for part in call.parts for i in part.axes}, low=any(p.low for p in call.parts))


@rule("size")
def _size(call: Call) -> Places:
    return Places(is_length=call.node.attrs["axis"] % call.rank(0) in call.parts[0].axes)


@rule("one_hot")
def _one_hot(call: Call) -> Places:
    if call.node.attrs["axis"] != -1 or any(part.axes for part in call.parts[1:]):
        raise call.depends("its new axis is not the last")
    return Places(dict.fromkeys(call.parts[0].axes))


@rule("gather")
def _gather(call: Call) -> Places:
    if call.parts[0].axes or call.node.attrs.get("batch_dims"):
        raise call.depends("it gathers elements of rows by position")
    first = call.node.attrs.get("axis", 0) % call.rank(0)
    return Places({axis + first: None for axis in call.parts[1].axes})


@rule("cumsum")
def _cumsum(call: Call) -> Places:
    axis = call.node.attrs["axis"] % call.rank(0)
    if axis in call.parts[0].axes and call.node.attrs.get("reverse"):
        raise call.depends("its cumulative sums start at the end of the row")
    return Places(dict.fromkeys(call.parts[0].axes))


# -- sums over positions
# ------------------------------------------------------------------------------------------------

_NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    "reduce_sum": lambda off: off == 0,
    "reduce_any": lambda off: off in (0, False),
    "reduce_all": lambda off: bool(off),
    "reduce_prod": lambda off: off == 1,
    "reduce_max": lambda off: off <= -1e9,
    "reduce_min": lambda off: off == inf,
}


@rule(
    "reduce_sum", "reduce_any", "reduce_all", "reduce_prod", "reduce_max", "reduce_min", "reduce_mean", "euclidean_norm"
)
def _reduce(call: Call) -> Places:
    return _reduced(call, call.node.op, call.node.attrs)


@rule("GlobalAveragePooling")
def _global_average(call: Call) -> Places:
    return _reduced(call, "reduce_mean", call.args)


@rule("GlobalMaxPooling")
def _global_maximum(call: Call) -> Places:
    return _reduced(call, "reduce_max", call.args)


def _reduced(call: Call, op: str, attrs: Mapping[str, Any]) -> Places:
    part, axes = call.parts[0], attrs["axes"]
    gone = {axis % call.rank(0) for axis in (range(call.rank(0)) if axes is None else axes)}
    for axis in gone & set(part.axes):
        off = part.off(axis)
        if op not in _NEUTRAL or off is None or not _NEUTRAL[op](off):
            raise call.depends("padding contributes to it")
    if attrs.get("keepdim"):
        return Places({axis: None for axis in part.axes if axis not in gone})
    kept = [axis for axis in range(call.rank(0)) if axis not in gone]
    return Places({i: None for i, axis in enumerate(kept) if axis in part.axes})


@rule("weighted_sum")
def _weighted_sum(call: Call) -> Places:
    for i in (0, 1):
        call.needs(i, 1)
    if set(call.parts[0].axes) | set(call.parts[1].axes) != {1} or 0 not in (
        call.parts[0].off(1),
        call.parts[1].off(1),
    ):
        raise call.depends("padding has a weight in it")
    return WHOLE


@rule("MaskedAverage")
def _masked_average(call: Call) -> Places:
    return _weighted_sum(call)


def _is_low(number: Any) -> bool:
    return isinstance(number, (int, float)) and number <= LOW


@rule("softmax")
def _softmax(call: Call) -> Places:
    part, last = call.parts[0], call.rank(0) - 1
    if last not in part.axes:
        return Places(dict.fromkeys(part.axes))
    if part.off(last) is None or part.off(last) > LOW or part.low or _is_low(part.on):
        raise call.depends("padding has a share in it, or a row may be fully masked")
    return Places({**dict.fromkeys(part.axes), last: 0})


@rule("matmul")
def _matmul(call: Call) -> Places:
    return _product(call, _labels(call.rank(0), call.rank(1)))


@rule("einsum")
def _einsum(call: Call) -> Places:
    return _product(call, _letters(call, call.node.attrs["equation"]))


def _letters(call: Call, equation: str) -> tuple[str, str, str]:
    """The axes of two operands and of their product."""
    left, _, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != 2 or "." in left or not right:
        raise call.depends("its equation does not have two operands with all axes named")
    return parts[0], parts[1], right


def _labels(a: int, b: int) -> tuple[str, str, str]:
    """The equation of a matmul of these ranks."""
    batch = "abcdefgh"[: max(a, b) - 2]
    return batch[len(batch) - (a - 2) :] + "mk", batch[len(batch) - (b - 2) :] + "kn", f"{batch}mn"


def _product(call: Call, labels: tuple[str, str, str]) -> Places:
    """A sum of products: a position after the end adds nothing if one factor is 0 there."""
    places = {labels[i][axis] for i in (0, 1) for axis in call.parts[i].axes}
    for i in (0, 1):
        for label in sorted(places & set(labels[i])):
            call.needs(i, labels[i].index(label))
    for label in places - set(labels[2]):
        offs = [call.parts[i].off(labels[i].index(label)) for i in (0, 1) if label in labels[i]]
        if not any(off is not None and off == 0 for off in offs):
            raise call.depends("padding contributes to it")
    return Places({labels[2].index(label): None for label in places if label in labels[2]})


# -- layers -------------------------------------------------------------------------------------------------------------


@rule("Linear", "LayerNorm", "ShiftedLayerNorm", "RMSNorm", "L2Normalize", "Embedding")
def _of_each_place(call: Call) -> Places:
    """Layers over the last axes of each position."""
    args, rank, part = call.args, call.rank(0), call.parts[0]
    own = {axis % rank for axis in args.get("axes", (-1,))} if rank else set[int]()
    if "normalized_shape" in args:
        own = set(range(rank - len(args["normalized_shape"]), rank))
    if "num_embeddings" in args:
        own = set()
    if own & set(part.axes) or len(call.parts) > 1:
        raise call.depends("it mixes positions")
    return Places(dict.fromkeys(part.axes), backwards=part.backwards)


@rule("EinsumDense")
def _einsum_dense(call: Call) -> Places:
    """A product with a weight whose axes are all of other places, so that nothing of the layer is sliced."""
    x, kernel, result = _letters(call, call.args["equation"])
    places = {x[axis] for axis in call.parts[0].axes}
    if places & set(kernel) or not places <= set(result):
        raise call.depends("its weight has a part for each position, or it mixes positions")
    bias = call.args.get("bias_shape") or ()
    own = {letter for letter, size in zip(reversed(result), reversed(bias), strict=False) if size != 1}
    if places & own:
        raise call.depends("its bias has a part for each position")
    return Places({result.index(label): None for label in places}, backwards=call.parts[0].backwards)


@rule("PositionEmbedding")
def _positions(call: Call) -> Places:
    return Places({0: None}) if call.parts[0].is_length else WHOLE


@rule("attention")
def _attention(call: Call) -> Places:
    heads_last = bool(call.node.attrs.get("heads_last"))
    axis = call.rank(0) - (3 if heads_last else 2)
    return _attended(call, axis)


@rule("MultiHeadAttention", "Attention", "AdditiveAttention")
def _multi_head_attention(call: Call) -> Places:
    return _attended(call, 1)


def _attended(call: Call, axis: int) -> Places:
    """Attention whose operands have their positions at `axis`, with a mask `[..., t, s]`."""
    query, keys = call.parts[0], call.parts[1:3]
    if any(set(part.axes) - {axis} for part in call.parts[:3]):
        raise call.depends("its operands have the row's positions at another axis")
    masked = len(call.parts) > 3 and call.inputs[3] is not None
    if masked and call.along(3, -2):
        call.needs(0, axis)
        query = call.parts[0]
    if any(part.axes for part in keys) or (masked and call.along(3, -1)):
        for i in (1, 2):
            call.needs(i, axis)
        if not masked:
            raise call.depends("it attends to padding: it has no mask")
        call.needs(3, -1)
        mask, last = call.parts[3], call.rank(3) - 1
        off, on = mask.off(last), mask.on
        if off is None or not (off is False or (off is not True and off <= LOW)):
            raise call.depends("its mask does not exclude padding")
        if mask.low or _is_low(on) or (off is False and on is not True):
            raise call.depends("its mask may exclude everything, and then it takes the average of all positions")
    if query.axes and masked:
        call.needs(3, -2)
    if masked and set(call.parts[3].axes) - {call.rank(3) - 1, call.rank(3) - 2}:
        raise call.depends("its mask has the row's positions at another axis")
    return Places(dict.fromkeys(query.axes))


@rule("GRU", "LSTM", "SimpleRNN", "ConcatGRU")
def _recurrent(call: Call) -> Places:
    masked, args = len(call.parts) > 1 and call.inputs[1] is not None, call.args
    if masked and call.along(1, 1):
        call.needs(0, 1)
    x = call.parts[0]
    if set(x.axes) != {1} or any(part.axes for part in call.parts[2:]):
        raise call.depends("the row's positions are not its steps")
    if masked:
        call.needs(1, 1)
        if call.parts[1].off(1) is not False:
            raise call.depends("its mask does not exclude the steps after the end of a row")
    elif args.get("go_backwards") or args.get("return_state") or not args.get("return_sequences"):
        raise call.depends("it reads past the end of a row: it has no mask")
    if args.get("return_state") and args.get("return_sequences"):
        raise call.depends("it returns its states besides the outputs of all steps")
    return Places({1: None}, backwards=bool(args.get("go_backwards"))) if args.get("return_sequences") else WHOLE
