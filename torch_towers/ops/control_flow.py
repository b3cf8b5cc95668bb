"""Branches and loops that depend on values. Their bodies are graphs; the executor passes each as a function of its operands."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import op

Body = Callable[..., tuple[Any, ...]]


@op(stage="early")
def cond(predicate: Any, *operands: Any, then_branch: Body, else_branch: Body) -> tuple[Any, ...]:
    """`then_branch(*operands)` where `predicate` holds, else `else_branch(*operands)`. Source: tf.raw_ops.If."""
    return then_branch(*operands) if holds(predicate) else else_branch(*operands)


@op(stage="early")
def while_loop(*operands: Any, cond: Body, body: Body, carried: int) -> tuple[Any, ...]:
    """The loop's variables when `cond` no longer holds: the first `carried` operands change, the rest stay.

    `cond(*operands) -> (bool,)`, `body(*operands) -> carried values`. Source: tf.raw_ops.While.
    """
    values, fixed = operands[:carried], operands[carried:]
    limit = None if torch.compiler.is_compiling() else _STEPS.get()
    done = 0
    while holds(cond(*values, *fixed)[0]):
        if done == limit:
            raise InputError(f"a loop takes more than {limit} steps, the limit that was set for it")
        values = body(*values, *fixed)
        done += 1
    return tuple(values)


_STEPS: ContextVar[int | None] = ContextVar("steps", default=None)


@contextmanager
def at_most_steps(steps: int) -> Generator[None]:
    """While it is open, a loop that takes more than `steps` is an InputError in this thread. Towers have no limit by themselves."""
    token = _STEPS.set(steps)
    try:
        yield
    finally:
        _STEPS.reset(token)


def holds(predicate: Any) -> bool:
    """TensorFlow's truth: a scalar that is not zero (or not the empty string), or a tensor that is not empty."""
    if isinstance(predicate, Tensor):
        return bool(predicate) if predicate.ndim == 0 else predicate.numel() > 0
    if hasattr(predicate, "ndim"):
        return bool(predicate.item()) if predicate.ndim == 0 else predicate.size > 0
    return bool(predicate)


@op(stage="early")
def branch_index(predicate: Any) -> Tensor:
    """1 where `predicate` holds, else 0: `[] -> []` int32. Source: the second result of tf.raw_ops.Merge."""
    return torch.tensor(int(holds(predicate)), dtype=torch.int32)
