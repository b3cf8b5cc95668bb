"""A flat TF graph as TensorFlow runs it, after its graph optimizer ("grappler") and with oneDNN's kernels.

Users' numbers come from the optimized graph: `x / 0.1` is computed as `x * 10`, and a `floor` after it may give another
bucket. All rewrites that change numbers are applied here under TensorFlow's own conditions; docs/served.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

from porting.served.arithmetic import ARITHMETIC
from porting.served.constants import CONSTANTS
from porting.served.draft import Draft, Evaluate
from porting.served.onednn import mark_fused
from torch_towers.graph.graph import Graph

Rule = Callable[[Draft, str], bool]
_ROUNDS = 2  # TensorFlow runs its optimizers twice
_PASSES = 100  # no known graph needs more than a few


class Served(NamedTuple):
    """How TensorFlow runs the graph: `optimizer`, with its graph optimizer; `onednn`, with oneDNN, as pip installs it
    on x86."""

    optimizer: bool = True
    onednn: bool = True


AS_WRITTEN = Served(optimizer=False, onednn=False)


def as_served(graph: Graph, how: Served, evaluate: Evaluate, captured: Container[str] = ()) -> Graph:
    """`graph` with the rewrites that TensorFlow applies before it runs it.

    `evaluate` returns the value of a constant graph (None if it has none); `captured` names constants that TensorFlow
    passes to the function at run time, so that its optimizer does not see their values.
    """
    draft = Draft(graph, evaluate, captured)
    if how.optimizer:
        for _ in range(_ROUNDS):
            for rules in (CONSTANTS, ARITHMETIC):
                _exhaust(draft, rules)
    if how.onednn:
        mark_fused(draft)
    return draft.graph()


def _exhaust(draft: Draft, rules: tuple[Rule, ...]) -> None:
    for _ in range(_PASSES):
        if not sum(any(rule(draft, name) for rule in rules) for name in list(draft.nodes)):
            return
