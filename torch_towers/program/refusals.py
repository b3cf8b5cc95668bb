"""Errors of torch's and numpy's kernels in TensorFlow's words or ours, with the node that failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import DTYPE_NAMES
from torch_towers.graph.graph import Node
from torch_towers.graph.registry import MODULES, OPS
from torch_towers.ops.array import in_range
from torch_towers.ops.sizes import as_sizes
from torch_towers.program.binding import Env, getter
from torch_towers.program.program import Program

KERNEL_ERRORS = (
    LookupError, ValueError, RuntimeError, ArithmeticError, MemoryError, TypeError, AttributeError, AssertionError,
)  # fmt: skip
"""What kernels raise for invalid operands. `InputError`, from checks with their own message, is a `ValueError`."""


def refusal(program: Program, inputs: Mapping[str, Any], error: Exception) -> str:
    """Explains why `program` raised `error` on `inputs`.

    The message of a check stays. After a kernel error, the nodes run one by one until one fails; the message names it
    by its TensorFlow op: "MatMul 'dense.matmul': Matrix size-incompatible: In[0]: [2,3], In[1]: [4,5]".
    """
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "there is not enough memory"
    env: Env = dict(inputs)
    for node, (name, run) in zip(program.graph.nodes, program.steps, strict=True):
        try:
            env[name] = run(program, env)
        except InputError as refused:
            return str(refused)
        except KERNEL_ERRORS:
            operands = [getter(operand)(env) for operand in node.inputs]
            return f"{_source(program, node)} {node.name!r}: {_sentence(node, operands)}"
    return "its results have different lengths"


def _source(program: Program, node: Node) -> str:
    """The TensorFlow op or layer of a node."""
    if node.op == "module":
        entry = MODULES[program.graph.modules[str(node.attrs["module"])].type]
        return entry.name
    found = re.search(r"Source: tf\.raw_ops\.(\w+)", OPS[node.op].function.__doc__ or "") if node.op in OPS else None
    return found[1] if found else node.op


def _sentence(node: Node, operands: Sequence[Any]) -> str:
    """TensorFlow's message for common errors, else a description of the operands."""
    try:
        said = _usual(node, operands)
    except KERNEL_ERRORS:  # operands that no such sentence is about
        said = ""
    return said or f"its operands do not match: {', '.join(map(_described, operands)) or 'it has none'}"


def _usual(node: Node, operands: Sequence[Any]) -> str:
    """TensorFlow's sentence; empty where this is none of the usual kinds."""
    if node.op in _SENTENCES:
        return _SENTENCES[node.op](node, operands) if isinstance(operands[0], (Tensor, np.ndarray)) else ""
    if node.op in OPS and OPS[node.op].function.__module__.endswith(".ops.math") and len(operands) == 2:
        first, second = map(_shape, operands)
        if first is not None and second is not None and not _broadcast(first, second):
            return f"Incompatible shapes: {_listed(first)} vs. {_listed(second)}"
    return ""


def _broadcast_to(node: Node, operands: Sequence[Any]) -> str:
    shape, wanted = operands[0].shape, as_sizes(tuple(operands[1:]))
    return "" if _broadcast(shape, wanted) else f"Incompatible shapes: {_listed(shape)} vs. {_listed(wanted)}"


def _where(node: Node, operands: Sequence[Any]) -> str:
    shapes = [_shape(value) or [] for value in operands]
    if len(shapes) != 3 or all(_broadcast(a, b) for a, b in combinations(shapes, 2)):
        return ""
    condition, then, other = map(_listed, shapes)
    return f"condition {condition}, then {then}, and else {other} must be broadcastable"


def _tile(node: Node, operands: Sequence[Any]) -> str:
    for i, times in enumerate(as_sizes(tuple(operands[1:]))):
        if times < 0:
            return f"Expected multiples[{i}] >= 0, but got {times}"
    return ""


def _one_hot(node: Node, operands: Sequence[Any]) -> str:
    depth = int(operands[1])
    return f"depth must be non-negative, got: {depth}" if depth < 0 else ""


def _matmul(node: Node, operands: Sequence[Any]) -> str:
    a, b = (list(value.shape) for value in operands)
    if len(a) < 2 or len(b) < 2:
        return ""
    return f"Matrix size-incompatible: In[0]: {_listed(a)}, In[1]: {_listed(b)}" if a[-1] != b[-2] else ""


def _concat(node: Node, operands: Sequence[Any]) -> str:
    axis = node.attrs.get("axis")
    first = list(operands[0].shape)
    for i, value in enumerate(operands):
        shape, where = list(value.shape), f"shape[0] = {_listed(first)} vs. shape[{i}] = {_listed(value.shape)}"
        if len(shape) != len(first):
            return f"ConcatOp : Ranks of all input tensors should match: {where}"
        for j, (a, b) in enumerate(zip(first, shape, strict=True)):
            if a != b and isinstance(axis, int) and j != axis % len(first):
                return f"ConcatOp : Dimension {j} in both shapes must be equal: {where}"
    return ""


def _stack(node: Node, operands: Sequence[Any]) -> str:
    first = operands[0].shape
    for i, value in enumerate(operands):
        if value.shape != first:
            pair = f"values[0].shape = {_listed(first)} != values[{i}].shape = {_listed(value.shape)}"
            return f"Shapes of all inputs must match: {pair}"
    return ""


def _gather(node: Node, operands: Sequence[Any]) -> str:
    x, indices = operands
    axis = node.attrs.get("axis", 0)
    try:
        in_range(indices, x.shape[axis] if isinstance(axis, int) else len(x))
    except (InputError, IndexError) as error:
        return str(error) if isinstance(error, InputError) else ""
    return ""


_SENTENCES: Mapping[str, Callable[[Node, Sequence[Any]], str]] = {
    "broadcast_to": _broadcast_to,
    "where": _where,
    "tile": _tile,
    "one_hot": _one_hot,
    "matmul": _matmul,
    "concat": _concat,
    "stack": _stack,
    "gather": _gather,
}


def _broadcast(first: Sequence[int], second: Sequence[int]) -> bool:
    pairs = zip(reversed(first), reversed(second), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _shape(value: Any) -> list[int] | None:
    return list(cast(Any, value).shape) if isinstance(value, (Tensor, np.ndarray)) else None


def _listed(shape: Sequence[int]) -> str:
    """A shape in TensorFlow's format."""
    return f"[{','.join(map(str, shape))}]"


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{DTYPE_NAMES.get(value.dtype, str(value.dtype))} {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"string {_shape(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"  # type: ignore[reportUnknownArgumentType]
    return repr(value)[:40] if isinstance(value, (int, float, bool, torch.dtype)) else type(value).__name__
