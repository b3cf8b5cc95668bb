"""Cost: how much a tower computes per row, to decide whether waking several threads pays off."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from torch_towers.graph.graph import Graph, Node
from torch_towers.layers.attention import MultiHeadAttention
from torch_towers.layers.linear import EinsumDense
from torch_towers.layers.recurrent import Recurrent
from torch_towers.program.binding import descend, path
from torch_towers.program.program import Program

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
    total = 0.0
    for node, env in each(program, inputs):
        total += _work(program, node, env)
        if total > SMALL:
            return math.inf
    return total


def each(program: Program, inputs: dict[str, Any]) -> Iterator[tuple[Node, dict[str, Any]]]:
    """Runs the nodes over `inputs` one by one; yields each with all values before it."""
    env = dict(inputs)
    for node, (name, run) in zip(program.graph.nodes, program.steps, strict=True):
        env[name] = run(program, env)
        yield node, env


def multiplications(program: Program, node: Node, env: dict[str, Any]) -> float:
    """The multiplications of a node that multiplies matrices, 0 for others; infinite if unknown."""
    if node.op.startswith("conv") or node.op == "einsum" or any(isinstance(v, Graph) for v in node.attrs.values()):
        return math.inf
    result = env[node.name]
    if not isinstance(result, Tensor):
        return 0.0
    if node.op == "matmul":
        return float(result.numel() * env[node.inputs[0]].shape[-1])
    if node.op == "attention":
        keys = env[node.inputs[1]]
        return float((env[node.inputs[0]].numel() + result.numel()) * keys.shape[1 if node.attrs["heads_last"] else -2])
    if node.op == "module":
        layer = descend(program, path(str(node.attrs["module"])))
        if isinstance(layer, _CONVOLUTIONS):
            of = env[str(node.inputs[0])] if layer.transposed else result
            return _CONVOLVED * float(of.numel() * layer.weight[0].numel())
        if isinstance(layer, nn.Linear):
            return float(result.numel() * layer.in_features)
        if isinstance(layer, EinsumDense):
            return float(result.numel() * _summed(layer))
        if isinstance(layer, Recurrent):
            return layer.multiplications(env[str(node.inputs[0])].shape)
        if isinstance(layer, MultiHeadAttention):
            return layer.multiplications(*(env[str(ref)].shape for ref in node.inputs[:2]))
    return 0.0


def _summed(layer: EinsumDense) -> int:
    """How many products are summed for each number: the sizes of the weight's axes that the result does not have."""
    operands, _, result = layer.equation.partition("->")
    letters = operands.partition(",")[2].replace("...", ".")
    sizes = zip(letters, layer.weight.shape, strict=False)
    return math.prod(size for letter, size in sizes if letter not in result)


def _work(program: Program, node: Node, env: dict[str, Any]) -> float:
    found, result = multiplications(program, node, env), env[node.name]
    if found or node.op in ("parameter", "constant") or not isinstance(result, Tensor):
        return found
    return float(_ELEMENT * result.numel())
