"""Cost: how much a tower computes per row, to decide whether waking several threads pays off."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from torch_towers.graph.graph import Graph, Node, bodies
from torch_towers.layers.attention import MultiHeadAttention
from torch_towers.layers.conv_lstm import ConvLSTM
from torch_towers.layers.linear import EinsumDense
from torch_towers.layers.recurrent import Recurrent
from torch_towers.program.binding import descend, getter, path
from torch_towers.program.program import Program
from torch_towers.program.row_rules import several

SMALL = 1e8
"""Multiplications that take one core some milliseconds; waking a thread costs some hundredths of one, for each
op."""

BATCH = 1024
"""Rows of a batch, unless they take little."""

_LARGEST_BATCH = 16 * BATCH
_BATCH_WORK = 10 * SMALL  # some ten milliseconds: a hundred times what a call costs beside its rows
_BATCH_MEMORY = 256 << 20  # bytes

_ELEMENT = 8  # multiplications that cost as much as reading or writing a number
_CONVOLVED = 3  # multiplications of a matrix product that cost as much as one of a convolution
_MULTIPLYING = frozenset({"matmul", "einsum", "conv", "conv_transpose", "attention", "module"})
_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


class Cost(NamedTuple):
    """What a row takes: multiplications in the encoder, and bytes before it."""

    work: float
    memory: float

    @property
    def batch(self) -> int:
        """How many such rows run together."""
        most = min(_BATCH_WORK / max(self.work, 1.0), _BATCH_MEMORY / max(self.memory, 1.0), _LARGEST_BATCH)
        return max(BATCH, int(most))


UNKNOWN = Cost(math.inf, math.inf)


def memory_of(graph: Graph, values: Mapping[str, Any]) -> float:
    """Bytes of what the nodes of a graph compute: tensors, strings and lists of them."""
    return sum(_memory(values[node.name]) for node in graph.nodes if node.op not in ("parameter", "constant"))


def _memory(value: Any) -> float:
    if isinstance(value, (list, tuple)):
        return sum(map(_memory, cast("list[Any]", value)))
    strings = sum(map(sys.getsizeof, value.ravel())) if str(getattr(value, "dtype", None)) == "object" else 0
    return strings + float(getattr(value, "nbytes", 0))


def work_of(program: Program, inputs: dict[str, Any]) -> float:
    """Multiplications of a run over `inputs`, counted by running it; infinite above `SMALL`, or if unknown."""
    total, env = 0.0, dict(inputs)
    for node, (name, run) in zip(program.graph.nodes, program.steps, strict=True):
        if bodies(node):
            with _Counting() as counted:
                env[name] = run(program, env)
            total += counted.work
        else:
            env[name] = run(program, env)
            total += _work(program, node, env)
        if total > SMALL:
            return math.inf
    return total


class _Counting(TorchDispatchMode):
    """Counts what torch computes: in loops and branches, which no count by node can tell."""

    work = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        factor = _FACTORS.get(func.overloadpacket.__name__)
        each = _ELEMENT if factor is None else args[factor].shape[-1]
        self.work += sum(float(x.numel() * each) for x in several(result) if isinstance(x, Tensor))
        return result


_FACTORS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""The first factor of torch's products of matrices, by its place among their operands."""


def each(program: Program, inputs: dict[str, Any]) -> Iterator[tuple[Node, dict[str, Any]]]:
    """Runs the nodes over `inputs` one by one; yields each with all values before it."""
    env = dict(inputs)
    for node, (name, run) in zip(program.graph.nodes, program.steps, strict=True):
        env[name] = run(program, env)
        yield node, env


def multiplications(program: Program, node: Node, env: dict[str, Any]) -> float:
    """The multiplications of a node that multiplies matrices, 0 for others; infinite if unknown."""
    if bodies(node):
        return math.inf
    if node.op not in _MULTIPLYING:
        return 0.0
    result, operands = env[node.name], [getter(operand)(env) for operand in node.inputs]
    if node.op == "matmul":
        return float(result.numel() * operands[0].shape[-1])
    if node.op == "einsum":
        return float(result.numel() * _summed(str(node.attrs["equation"]), [x.shape for x in operands]))
    if node.op == "conv":
        depthwise = node.attrs.get("depthwise", False)
        return _CONVOLVED * float(result.numel() * operands[1].shape[: -2 if depthwise else -1].numel())
    if node.op == "conv_transpose":
        return _CONVOLVED * float(operands[0].numel() * operands[1].shape[:-1].numel())
    if node.op == "attention":
        keys = operands[1].shape[1 if node.attrs["heads_last"] else -2]
        return float((operands[0].numel() + result.numel()) * keys)
    return _multiplications_of(descend(program, path(str(node.attrs["module"]))), operands, result)


def _multiplications_of(layer: nn.Module, operands: list[Any], result: Any) -> float:
    if isinstance(layer, _CONVOLUTIONS):
        return _CONVOLVED * float((operands[0] if layer.transposed else result).numel() * layer.weight[0].numel())
    if isinstance(layer, nn.Linear):
        return float(result.numel() * layer.in_features)
    if isinstance(layer, EinsumDense):
        return float(result.numel() * _summed(layer.equation, [(), layer.weight.shape]))
    if isinstance(layer, Recurrent):
        return (_CONVOLVED if isinstance(layer, ConvLSTM) else 1) * layer.multiplications(operands[0].shape)
    if isinstance(layer, MultiHeadAttention):
        return layer.multiplications(*(operand.shape for operand in operands[:2]))
    return 0.0


def _summed(equation: str, shapes: Sequence[Sequence[int]]) -> int:
    """How many products are summed for each number: the sizes of the axes that the result does not have."""
    operands, _, result = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, shape in zip(operands.split(","), shapes, strict=False):
        before, _, after = term.partition("...")
        sizes |= dict(zip(before, shape, strict=False)) | dict(zip(reversed(after), reversed(shape), strict=False))
    return math.prod(size for letter, size in sizes.items() if letter not in result)


def _work(program: Program, node: Node, env: dict[str, Any]) -> float:
    found, result = multiplications(program, node, env), env[node.name]
    if found or node.op in ("parameter", "constant") or not isinstance(result, Tensor):
        return found
    return float(_ELEMENT * result.numel())
