"""The registry of rewrites; importing `porting.rewrites` fills `REWRITES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from porting.lifting.patterns import Match, Pattern
from porting.lifting.view import View
from torch_towers.graph.graph import Node

Apply = Callable[[View, Node, Match], str | None]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`pattern` finds candidates, `apply(view, root, match)` writes the layer or raises `Refusal`.

    `layer` is the name in statistics, unless `apply` returns another; empty for identities, which only normalize
    the graph.
    """

    layer: str
    pattern: Pattern
    apply: Apply
    keeps: frozenset[str]
    forward: bool


REWRITES: dict[str, list[Rewrite]] = {}
"""The rewrites of each file of `porting/rewrites/`, in execution order."""


def rewrite(
    layer: str, pattern: Pattern, *, keeps: Iterable[str] = (), forward: bool = False
) -> Callable[[Apply], Apply]:
    """Registers `apply(view, root, match)` for matches of `pattern`.

    Covered nodes must have no other readers, except those that the pattern binds under a name in `keeps`.
    `forward`: nodes are visited first to last, for layers that need the sizes of the previous one.
    """

    def add(apply: Apply) -> Apply:
        file = apply.__module__.rpartition(".")[2]
        REWRITES.setdefault(file, []).append(Rewrite(layer, pattern, apply, frozenset(keeps), forward))
        return apply

    return add
