"""Data-dependent branches and loops. Their bodies are graphs, passed as functions of their operands."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Number, op
from torch_towers.kernels.threads import spread

Body = Callable[..., tuple[Any, ...]]


@op(stage="early")
def cond(predicate: Any, *operands: Any, then_branch: Body, else_branch: Body) -> tuple[Any, ...]:
    """`then_branch(*operands)` if `predicate` holds, else `else_branch(*operands)`. Source: tf.raw_ops.If."""
    return then_branch(*operands) if holds(predicate) else else_branch(*operands)


@op(stage="early")
def while_loop(*operands: Any, cond: Body, body: Body, carried: int) -> tuple[Any, ...]:
    """The loop variables once `cond` no longer holds: the first `carried` operands change, the rest are constant.

    `cond(*operands) -> (bool,)`, `body(*operands) -> carried values`. Source: tf.raw_ops.While.
    """
    values, fixed = operands[:carried], operands[carried:]
    limit, done = _limit(), 0
    while holds(cond(*values, *fixed)[0]):
        done += 1
        _check_steps(done, limit)
        values = body(*values, *fixed)
    return tuple(values)


@op(stage="early")
def map_steps(steps: Number, *operands: Any, body: Body, results: int, threads: bool) -> tuple[list[Any], ...]:
    """The values of `body(step, *operands) -> values` at each step, a list for each value: a loop whose steps need no
    order.

    `threads`: steps take long and release Python's lock, so they run on as many threads as torch may use. Source:
    tf.map_fn.
    """
    count = int(steps)
    _check_steps(count, _limit())

    def run(part: range) -> list[tuple[Any, ...]]:
        return [body(step, *operands) for step in part]

    rows = spread(run, count) if threads else run(range(count))
    return tuple(map(list, zip(*rows, strict=True))) if rows else tuple([] for _ in range(results))


_STEPS: ContextVar[int | None] = ContextVar("steps", default=None)


def _limit() -> int | None:
    return None if torch.compiler.is_compiling() else _STEPS.get()


def _check_steps(count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        raise InputError(f"a loop takes more than {limit} steps, the limit set by at_most_steps")


@contextmanager
def at_most_steps(steps: int) -> Generator[None]:
    """A context in which a loop of more than `steps` steps raises InputError in this thread. Towers have no limit by
    default."""
    token = _STEPS.set(steps)
    try:
        yield
    finally:
        _STEPS.reset(token)


def holds(predicate: Any) -> bool:
    """TensorFlow's truth value: a scalar that is not zero (or not the empty string), or a nonempty tensor."""
    if isinstance(predicate, Tensor):
        return bool(predicate) if predicate.ndim == 0 else predicate.numel() > 0
    if hasattr(predicate, "ndim"):
        return bool(predicate.item()) if predicate.ndim == 0 else predicate.size > 0
    return bool(predicate)


@op(stage="early")
def branch_index(predicate: Any) -> Tensor:
    """1 where `predicate` holds, else 0: `[] -> []` int32. Source: the second result of tf.raw_ops.Merge."""
    return torch.tensor(int(holds(predicate)), dtype=torch.int32)
