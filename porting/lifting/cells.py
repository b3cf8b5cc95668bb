"""The cells of recurrent layers: the formulas of one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from porting.lifting.activations import Activation
from porting.lifting.patterns import Any_, Apply, Match, Nodes, Number, Pattern, Weight
from torch_towers.graph.graph import node_of


@dataclass(frozen=True)
class Part(Pattern):
    """One of `count` equal slices of the last axis of `inner`, each `units` wide, or `span` of them; `axes`: the numbers
    of the last axis."""

    inner: Pattern
    index: int
    count: int
    units: int
    span: int = 1
    axes: tuple[int, ...] = (1, -1)

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        if node is None or node.attrs.get("axis") not in self.axes:
            return
        first, last = self.index * self.units, (self.index + self.span) * self.units
        end = (last, None) if last == self.count * self.units else (last,)
        which = operand.partition(":")[2]
        if (
            (node.op == "chunk" and node.attrs["num"] == self.count and which == str(self.index) and self.span == 1)
            or (node.op == "split_sizes" and self._is_split(node.attrs["lengths"]) and which == str(self.index))
            or (node.op == "slice" and node.attrs["step"] == 1 and node.inputs[1] == first and node.inputs[2] in end)
        ):
            yield from self.inner.find(nodes, node.inputs[0], match)

    def _is_split(self, lengths: Sequence[int]) -> bool:
        last = self.count - 1  # -1 means the rest, whose size follows from the weights' shapes
        return self.span == 1 and all(
            length == self.units or (length == -1 and i == last) for i, length in enumerate(lengths[: self.count])
        )


@dataclass(frozen=True)
class Row(Pattern):
    """One of the two rows of a matrix."""

    inner: Pattern
    index: int

    def find(self, nodes: Nodes, operand: Any, match: Match) -> Iterator[Match]:
        node = nodes.nodes.get(node_of(operand)) if isinstance(operand, str) else None
        squeezed = node is not None and node.op == "squeeze" and tuple(node.attrs["axes"]) == (0,)
        if node is not None and squeezed:
            operand = node.inputs[0]
            node = nodes.nodes.get(node_of(operand))
        if node is None or node.op != ("chunk" if squeezed else "unstack"):
            return
        if (node.attrs["axis"], node.attrs["num"], operand.partition(":")[2]) == (0, 2, str(self.index)):
            yield from self.inner.find(nodes, node.inputs[0], match)


def _kept(p: Pattern) -> Pattern:
    """`p`, possibly times the ones of a dropout that is off."""
    return p * 1.0 | p


INPUTS, STATES, FUSED = "convolved_x", "convolved_h", "fused"
"""The names of the convolutions of a `ConvLSTM`, each with its gate behind it, and that of a relu which oneDNN fuses with one."""

_X, _H, _C = Any_("x"), Any_("h"), Any_("c")
_KERNEL, _RECURRENT, _BIAS = Weight("kernel"), Weight("recurrent"), Weight("bias")


def _product(x: Pattern, kernel: Pattern, bias: Pattern) -> Pattern:
    """`x @ kernel + bias`, with or without the bias."""
    product = Apply("matmul", x, kernel)
    return product + bias | product


def _part_of_product(x: Pattern, kernel: Pattern, bias: Pattern, index: int, count: int, units: int) -> Pattern:
    """A part of `x @ kernel + bias`: of the result, or, where each input has a dropout of its own, of the weights."""
    parts = Part(kernel, index, count, units), Part(bias, index, count, units, axes=(0, -1))
    return Part(_product(x, kernel, bias), index, count, units) | _product(x, *parts)


def _gate(p: Pattern) -> Pattern:
    return Activation("recurrent_activation", p)


def _new(p: Pattern) -> Pattern:
    return Activation("activation", p)


@cache
def _gru(units: int) -> Pattern:
    """`z h + (1 - z) tanh(x_n + r h_n)`: the state's product is reset, and has its own bias."""
    x = [_part_of_product(_kept(_X), _KERNEL, Row(_BIAS, 0), index, 3, units) for index in range(3)]
    h = [_part_of_product(_kept(_H), _RECURRENT, Row(_BIAS, 1), index, 3, units) for index in range(3)]
    z, r = (_gate(x[index] + h[index]) for index in (0, 1))
    return z * _H + _one_minus(z) * _new(x[2] + r * h[2])


@cache
def _gru_reset_before(units: int) -> Pattern:
    """The state is reset before its matmul."""
    x = [_part_of_product(_kept(_X), _KERNEL, _BIAS, index, 3, units) for index in range(3)]
    h = Apply("matmul", _H, Part(_RECURRENT, 0, 3, units, span=2))
    z, r = (
        _gate(x[i] + (Part(h, i, 2, units) | Apply("matmul", _kept(_H), Part(_RECURRENT, i, 3, units)))) for i in (0, 1)
    )
    n = x[2] + Apply("matmul", r * _kept(_H), Part(_RECURRENT, 2, 3, units))
    return z * _H + _one_minus(z) * _new(n)


def _one_minus(p: Pattern) -> Pattern:
    return Apply("sub", 1.0, p)


def _beside(x: Pattern, h: Pattern, name: str) -> Pattern:
    """`[x, h] @ kernel + bias`, as the cells of TensorFlow 1 have it."""
    joined = Apply("concat", x, h, axis=lambda axis: axis in (1, -1))
    return _product(joined, Weight(name), Weight(f"{name}_bias"))


@cache
def _gru_of_cells(units: int) -> Pattern:
    """The GRUCell of TensorFlow 1: reset and update by one kernel, the candidate by another."""
    gates = _beside(_X, _H, "gates")
    r, z = (_gate(Part(gates, i, 2, units)) | Part(_gate(gates), i, 2, units) for i in (0, 1))
    return z * _H + _one_minus(z) * _new(_beside(_X, r * _H, "candidate"))


def _sum(kernel: Pattern = _KERNEL, recurrent: Pattern = _RECURRENT, bias: Pattern = _BIAS) -> Pattern:
    """`x @ kernel + h @ recurrent + bias`, in any order."""
    x, h = Apply("matmul", _kept(_X), kernel), Apply("matmul", _kept(_H), recurrent)
    return (x + h) + bias | (x + bias) + h | x + h


_SUM = _sum() | _beside(_X, _H, "joint")


@cache
def _rnn(units: int) -> Pattern:
    return _new(_SUM)


def _part_of_sum(index: int, units: int) -> Pattern:
    """One gate of the sum: i, f, g and o in Keras, i, g, f and o in the cells of TensorFlow 1."""
    kernel, recurrent = (Part(weight, index, 4, units) for weight in (_KERNEL, _RECURRENT))
    parted = _sum(kernel, recurrent, Part(_BIAS, index, 4, units, axes=(0, -1)))
    return Part(_sum(), index, 4, units) | parted


@cache
def _lstm_cell(units: int) -> Pattern:
    i, f, g = (_part_of_sum(index, units) for index in range(3))
    return _gate(f) * _C + _gate(i) * _new(g)


def _part_of_joint(index: int, units: int) -> Pattern:
    return Part(_beside(_X, _H, "joint"), index, 4, units)


@cache
def _joint_lstm_cell(units: int) -> Pattern:
    i, g, f = (_part_of_joint(index, units) for index in range(3))
    return _gate(f + Number(name="forget_bias") | f) * _C + _gate(i) * _new(g)


@cache
def _joint_lstm(units: int) -> Pattern:
    return _gate(_part_of_joint(3, units)) * _new(Any_("c_next"))


@cache
def _lstm(units: int) -> Pattern:
    return _gate(_part_of_sum(3, units)) * _new(Any_("c_next"))


def _is_row(axis: int) -> bool:
    return axis in (1, -3)


def _convolved(x: Pattern, kernel: Pattern, name: str) -> Pattern:
    """A convolution, named so; of sequences as images of one row."""
    row = Apply("conv", Apply("unsqueeze", x, axis=_is_row), Apply("unsqueeze", kernel, axis=0), name=name)
    return Apply("conv", x, kernel, name=name) | Apply(
        "squeeze", row, axes=lambda axes: len(axes) == 1 and _is_row(axes[0])
    )


def _convolved_part(index: int, rank: int, units: int) -> Pattern:
    """One gate of an LSTM over images of `rank` spatial axes; its two convolutions are named by their place."""
    kernel, recurrent = (Part(weight, index, 4, units, axes=(rank + 1, -1)) for weight in (_KERNEL, _RECURRENT))
    bias = Part(_BIAS, index, 4, units, axes=(0, -1))
    by_channel = bias | Apply("reshape", bias, *[1] * (rank + 1), units)
    x = _convolved(_X, kernel, f"{INPUTS}{index}")
    h = _convolved(_H, recurrent, f"{STATES}{index}")
    return (x + by_channel) + h | x + h


@cache
def _conv_lstm_cell(rank: int, units: int) -> Pattern:
    i, f, g = (_convolved_part(index, rank, units) for index in range(3))
    return _gate(f) * _C + _gate(i) * (_new(g) | Apply("relu", g, no_nan=True, name=FUSED))


@cache
def _conv_lstm(rank: int, units: int) -> Pattern:
    return _gate(_convolved_part(3, rank, units)) * _new(Any_("c_next"))


@dataclass(frozen=True)
class Kind:
    """A layer: its type, the formulas of its states (the output's first), and the permutation from Keras's to torch's
    gates."""

    layer: str
    formulas: tuple[Any, ...]
    gates: tuple[int, ...]
    biases: int = 1
    reset_after: bool | None = None

    def matches(self, nodes: Nodes, output: Any, units: int, known: Match) -> Iterator[Match]:
        """Every match of a step with this layer, of which `output` is the new `h`, beside what is `known` of it."""
        first, *second = (formula(units) for formula in self.formulas)
        for match in first.find(nodes, output, known):
            yield from second[0].find(nodes, match["c_next"], match) if second else (match,)


KINDS = (
    Kind("GRU", (_gru,), (1, 0, 2), biases=2),
    Kind("GRU", (_gru_reset_before,), (1, 0, 2), reset_after=False),
    Kind("ConcatGRU", (_gru_of_cells,), (0, 1, 2)),
    Kind("LSTM", (_lstm, _lstm_cell), (0, 1, 2, 3)),
    Kind("LSTM", (_joint_lstm, _joint_lstm_cell), (0, 2, 1, 3)),
    Kind("SimpleRNN", (_rnn,), (0,)),
    *(
        Kind("ConvLSTM", (partial(_conv_lstm, rank), partial(_conv_lstm_cell, rank)), (0, 1, 2, 3))
        for rank in (1, 2, 3)
    ),
)
