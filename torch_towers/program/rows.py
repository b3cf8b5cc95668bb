"""Rows: whether each row of an encoder's outputs depends on the same row of its inputs alone, and a large batch in parts.

The values between the ops of a large batch do not fit the processor's caches, and their memory is new to the process at
each op: mapping its pages costs more than the arithmetic. Rows in parts of some megabytes stay in memory that the
allocator keeps. They are computed in parts only where every op is known to keep rows apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_towers.graph.graph import Graph, node_of
from torch_towers.graph.registry import MODULES
from torch_towers.kernels.fast_path import plain, readable, untouched
from torch_towers.program.binding import descend, is_layer, path
from torch_towers.program.cost import each
from torch_towers.program.program import Program, graphs, modules
from torch_towers.program.refusals import KERNEL_ERRORS
from torch_towers.program.row_rules import Kind, kind_of, several

PART = 24 << 20
"""Bytes of the largest value of a part: less than what any setting of glibc's allocator keeps (`memory.py`)."""

MANY = 128
"""Rows below which it is not asked whether they are better run in parts."""

ALL = 1 << 62
"""The size of a part that is never reached."""

_SHARE = 4  # an encoder's largest value is at least this many times its outputs
_KEPT = 64  # sizes of inputs for which a part's size is kept
_FEW = 2  # rows of the run that tells the ranks and sizes of values


class RowParts:
    """Runs an encoder on some rows at a time, where that is faster and nothing can observe it."""

    def __init__(self, encoder: Graph) -> None:
        self._by_row = _by_row(encoder)
        self._sizes: dict[Any, int] = {}  # by what the sizes of values depend on

    def __call__(self, encoder: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """`encoder(**inputs)`."""
        rows = self._rows(inputs) if readable() else 0  # a captured graph must not compare its sizes
        if rows < MANY or not _unseen(encoder, inputs):  # in this order: calls of few rows take microseconds
            return encoder(**inputs)
        size = self._size(encoder, inputs)
        return _run(encoder, inputs, self._by_row, size) if size < rows and _as_made(encoder) else encoder(**inputs)

    def _rows(self, inputs: Mapping[str, Any]) -> int:
        """The number of rows, 0 where there are none or inputs differ in it."""
        values = [inputs[name] for name in self._by_row]
        sizes = {len(x) if isinstance(x, Tensor) and x.ndim else 0 for x in values}
        return sizes.pop() if len(sizes) == 1 else 0

    def _size(self, encoder: Program, inputs: Mapping[str, Any]) -> int:
        """How many rows of such inputs run together."""
        own = tuple(tuple(x.shape[1:]) if isinstance(x, Tensor) else x for x in inputs.values())
        key = encoder.dtype, own
        size = self._sizes.get(key)
        if size is None:
            if not _as_made(encoder):
                return ALL  # as long as it is so
            if len(self._sizes) >= _KEPT:
                self._sizes.clear()
            size = self._sizes[key] = part_of(encoder, inputs)
        return size


def part_of(program: Program, inputs: Mapping[str, Any]) -> int:
    """How many rows of such `inputs` run together, at least one; `ALL` where parts would be wrong or no faster."""
    found = memory_of(program, inputs)
    if found is None or found.outputs * _SHARE > found.largest:
        return ALL  # in the latter case most of the memory is that of the result, in parts or not
    weights = sum(value.nbytes for value in program.parameters())
    return max(1, int(max(PART, weights + found.shared) / found.largest))  # each part reads and computes these anew


class Memory(NamedTuple):
    """Bytes per row of the largest value of a node, and of all outputs; and of all values that are computed from weights alone."""

    largest: float
    outputs: float
    shared: int


def memory_of(program: Program, inputs: Mapping[str, Any]) -> Memory | None:
    """What a row of `inputs` takes; None if rows may depend on others. Runs the first two rows."""
    if len(graphs(program.graph)) > 1:
        return None  # a branch decides for all rows, and a loop may take its time
    by_row = _by_row(program.graph)
    few = {name: value[:_FEW] if name in by_row else value for name, value in inputs.items()}
    kinds = {name: Kind.ROWS if name in by_row else Kind.SHARED for name in inputs}
    sizes, shared = dict.fromkeys(inputs, 0), 0
    try:
        for node, env in each(program, few):
            found = kind_of(program.graph, node, kinds, env, _FEW)
            if found is None:
                return None
            kinds[node.name] = found
            size = sum(part.nbytes for part in several(env[node.name]) if isinstance(part, Tensor))
            sizes[node.name] = size if found is Kind.ROWS else 0
            shared += size if found is Kind.SHARED and node.op not in ("parameter", "constant") else 0
    except KERNEL_ERRORS:  # a graph that needs more rows, or these rows are refused: the whole batch says so
        return None
    given = {node_of(ref) for ref in program.graph.outputs.values()}
    if any(kinds[name] is not Kind.ROWS for name in given):
        return None
    return Memory(max(1, *sizes.values()) / _FEW, sum(sizes[name] for name in given) / _FEW, shared)


def _by_row(graph: Graph) -> tuple[str, ...]:
    """The inputs with a free first size."""
    return tuple(spec.name for spec in graph.inputs if spec.shape and spec.shape[0] is None)


def _run(program: Program, inputs: dict[str, Any], by_row: Sequence[str], size: int) -> dict[str, Any]:
    """The outputs of parts of at most `size` rows, all of nearly the same size."""
    rows = len(inputs[by_row[0]])
    count = -(-rows // size)
    ends = [rows * (i + 1) // count for i in range(count)]
    parts = [
        program(**{**inputs, **{name: inputs[name][start:end] for name in by_row}})
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _unseen(encoder: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether nothing could tell parts from the whole: no gradients, hooks, modes, training, or encoder of the user's."""
    if torch.is_grad_enabled() or not untouched(encoder, Program) or encoder.training:
        return False
    tensors = [value for value in inputs.values() if not isinstance(value, int)]
    return all(isinstance(x, Tensor) and x.is_cpu for x in tensors) and plain(*tensors)  # others are lists of tensors


def _as_made(program: Program) -> bool:
    """Whether every layer is the one that the graph names, without hooks and out of training."""
    for name, spec in modules(program.graph).items():
        kind: Any = MODULES[spec.type].function
        if is_layer(MODULES[spec.type]):
            layer = descend(program, path(name))
            if layer.training or not untouched(layer, kind):
                return False
    return True
