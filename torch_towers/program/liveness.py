"""Liveness: a run forgets the values that no later step reads, so that their memory serves the next ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from torch_towers.graph.graph import Graph, node_of, references
from torch_towers.program.binding import Env, Run, Step

_EVERY = 8
"""Steps between two that forget: at one row a step takes some microseconds, and forgetting after each a twentieth of that."""


def forgetting(graph: Graph, plan: Sequence[Step]) -> tuple[Step, ...]:
    """`plan` with steps between that remove from the values of the run what no later step and no output reads."""
    last = _last_reads(graph, plan)
    dying: list[list[str]] = [[] for _ in plan]
    for name, place in last.items():
        if place < len(plan):
            dying[place].append(name)
    return tuple(_joined(plan, dying))


def _last_reads(graph: Graph, plan: Sequence[Step]) -> dict[str, int]:
    """The place in the plan of the last step that reads each value: its own if none does, the plan's end for outputs."""
    place = {name: i for i, (name, _) in enumerate(plan)}
    last = dict.fromkeys(map(node_of, graph.outputs.values()), len(plan))
    for node in reversed(graph.nodes):
        own = place.get(node.name, last.get(node.name, 0))  # a node of a fused step is computed where it is read
        last.setdefault(node.name, own)
        for name in map(node_of, references(node.inputs)):
            last[name] = max(last.get(name, 0), own)
    return last


def _joined(plan: Sequence[Step], dying: Sequence[list[str]]) -> Iterator[Step]:
    for start in range(0, len(plan), _EVERY):
        yield from plan[start : start + _EVERY]
        names = tuple(name for some in dying[start : start + _EVERY] for name in some)
        if names and start + _EVERY < len(plan):  # after the last, all of them are forgotten
            yield _FORGOTTEN, _forget(names)


_FORGOTTEN = ":"
"""What a step that forgets is called: no node has this name."""


def _forget(names: tuple[str, ...]) -> Run:
    def run(root: nn.Module, env: Env) -> None:
        for name in names:
            env.pop(name, None)  # a fused step may not have computed it

    return run
