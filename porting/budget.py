"""Budget: what one port may cost, whatever a file asks for. A file of a kilobyte can ask for a million nodes, or for gigabytes.

The mechanisms that make more of a file than it holds (inlining, folding, loops that run) spend from it, and say where it ended.
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
"""Nodes that inlining may make of any file; a large file may have more by its own weight."""
FOLD_BYTES = 128 << 20
"""Bytes that constants computed at port time, and the names of inlined nodes, may take together."""
STEPS = 50_000
"""Steps of a loop that is run at port time, on samples of the inputs."""

_SAID = {
    "nodes": ("the graph has over {limit} nodes once the functions it calls are inlined", "--max-nodes"),
    "fold_bytes": ("what is computed at port time takes over {limit} bytes", "--max-fold-bytes"),
}


class Weight(NamedTuple):
    """How much a SavedModel holds: the nodes of its graph and functions, and the bytes of their file."""

    nodes: int
    graph_bytes: int


class BudgetError(PortingError):
    """A SavedModel asks for more than a port may cost; the option named in the message raises the limit."""


@dataclass
class Budget:
    """What may be spent: nodes, bytes, and the steps of each loop that runs. Errors of `spend`: `BudgetError`."""

    nodes: int = NODES
    fold_bytes: int = FOLD_BYTES
    steps: int = STEPS
    spent: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(
        cls, weight: Weight, *, nodes: int | None = None, fold_bytes: int | None = None, steps: int | None = None
    ) -> Budget:
        """The budget of a SavedModel of this weight; what is given goes before that."""
        return cls(
            nodes=NODES + 16 * weight.nodes if nodes is None else nodes,
            fold_bytes=FOLD_BYTES + 4 * weight.graph_bytes if fold_bytes is None else fold_bytes,
            steps=STEPS if steps is None else steps,
        )

    def fresh(self, times: int = 1) -> Budget:
        """The same limits, or some times as many bytes, with nothing spent: for what is computed and forgotten."""
        return Budget(self.nodes, times * self.fold_bytes, self.steps)

    def spend(self, kind: Kind, amount: int, where: str) -> None:
        """Takes `amount` for what happens at the node `where`. Once the limit is passed, every call is an error."""
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
    """The budget of the port that runs here; one of its own where none runs."""
    return _CURRENT.get() or Budget()


@contextmanager
def within(budget: Budget) -> Generator[Budget]:
    """While it is open, `budget` is the current one of this thread."""
    token = _CURRENT.set(budget)
    try:
        yield budget
    finally:
        _CURRENT.reset(token)
