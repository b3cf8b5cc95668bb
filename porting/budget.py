"""Resource limits of one port, whatever a file asks for: a file of a kilobyte can ask for a million nodes, or
gigabytes.

Mechanisms that can amplify a file (inlining, folding, running loops) spend from the budget; errors name the place where
it ran out.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from porting.errors import PortingError

Kind = Literal["nodes", "fold_bytes"]

NODES = 10_000
"""Nodes that inlining may create for any file; a large file may create more, by its own size."""
FOLD_BYTES = 128 << 20
"""Total bytes of constants computed at port time and of names of inlined nodes."""
STEPS = 50_000
"""Steps of a loop that runs at port time, on samples of the inputs."""

_SAID = {
    "nodes": ("the graph has over {limit} nodes once the functions it calls are inlined", "--max-nodes"),
    "fold_bytes": ("what is computed at port time takes over {limit} bytes", "--max-fold-bytes"),
}


class Weight(NamedTuple):
    """The size of a SavedModel: the nodes of its graph and functions, and the bytes of their file."""

    nodes: int
    graph_bytes: int


class BudgetError(PortingError):
    """A SavedModel exceeds the budget of a port; the option named in the message raises the limit."""


@dataclass
class Budget:
    """The limits: nodes, bytes, and steps of each loop. Errors of `spend`: `BudgetError`."""

    nodes: int = NODES
    fold_bytes: int = FOLD_BYTES
    steps: int = STEPS
    spent: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(
        cls, weight: Weight, *, nodes: int | None = None, fold_bytes: int | None = None, steps: int | None = None
    ) -> Budget:
        """The budget of a SavedModel of this size; explicit limits take precedence."""
        return cls(
            nodes=NODES + 16 * weight.nodes if nodes is None else nodes,
            fold_bytes=FOLD_BYTES + 4 * weight.graph_bytes if fold_bytes is None else fold_bytes,
            steps=STEPS if steps is None else steps,
        )

    def fresh(self, times: int = 1) -> Budget:
        """An unspent budget with the same limits, or `times` the bytes, for temporary values."""
        return Budget(self.nodes, times * self.fold_bytes, self.steps)

    def spend(self, kind: Kind, amount: int, where: str) -> None:
        """Spends `amount` at the node `where`. Once the limit is exceeded, every call raises."""
        limit: int = getattr(self, kind)
        self.spent[kind] = self.spent.get(kind, 0) + amount
        if self.spent[kind] > limit:
            what, option = _SAID[kind]
            raise BudgetError(
                f"{_short(where)!r}: {what.format(limit=f'{limit:,}')}, more than a model of its size needs: if you trust "
                f"the file, raise the limit with {option}"
            )


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:97]}...{name[-100:]}"


_CURRENT: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current() -> Budget:
    """The budget of the current port; an own default budget outside of one."""
    return _CURRENT.get() or Budget()


@contextmanager
def within(budget: Budget) -> Generator[Budget]:
    """A context in which `budget` is the current one of this thread."""
    token = _CURRENT.set(budget)
    try:
        yield budget
    finally:
        _CURRENT.reset(token)
