"""Fusion: nodes that run as one call where that gives the same numbers in less time.

A graph stays as it is written; only its plan, the calls that a run makes, has one step in the place of several. A step that
cannot be fast this time (a gradient is asked for, a layer was swapped, the graph is being compiled) makes the single calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from torch_towers.graph import Graph, Node, node_of, references
from torch_towers.layers.embedding import Embedding
from torch_towers.steps import Env, Host, Run, Step, descend, path, steps_of


class Fused(NamedTuple):
    """One call for several nodes: `absorbed` come before the node that the call computes, and nothing else reads them."""

    absorbed: tuple[str, ...]
    run: Run  # gives `NotImplemented` where the single calls have to do it


class View:
    """A graph as patterns see it."""

    def __init__(self, graph: Graph, host: Host) -> None:
        self.graph, self.host = graph, host
        self.nodes = {node.name: node for node in graph.nodes}
        self._readers = Counter(name for node in graph.nodes for name in map(node_of, references(node.inputs)))
        self._readers.update(map(node_of, graph.outputs.values()))

    def only(self, reference: Any) -> Node | None:
        """The node behind a reference to a whole value that nothing else reads."""
        node = self.nodes.get(reference) if isinstance(reference, str) else None
        return node if node is not None and self._readers[node.name] == 1 else None

    def module_type(self, node: Node) -> str:
        """The type of the module that a node calls, or nothing."""
        return self.graph.modules[str(node.attrs["module"])].type if node.op == "module" else ""


def plan_of(graph: Graph, host: Host) -> tuple[Step, ...]:
    """The steps of a run: one for each node, or for several that are fused."""
    single = dict(steps_of(graph, host))
    view = View(graph, host)
    fused = {node.name: found for node in graph.nodes for pattern in _PATTERNS if (found := pattern(view, node))}
    absorbed = {name for found in fused.values() for name in found.absorbed}
    plan: list[Step] = []
    for name, run in single.items():
        if name in fused:
            parts = [(part, single[part]) for part in fused[name].absorbed]
            plan.append((name, _with_single_calls(fused[name].run, parts, run)))
        elif name not in absorbed:
            plan.append((name, run))
    return tuple(plan)


def _with_single_calls(fast: Run, parts: Sequence[Step], last: Run) -> Run:
    def run(root: nn.Module, env: Env) -> Any:
        value = fast(root, env)
        if value is NotImplemented:
            for name, part in parts:
                env[name] = part(root, env)
            value = last(root, env)
        return value

    return run


def untouched(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling a layer does what its class says: not swapped, not patched, without hooks, and no gradient is asked for."""
    return (
        type(layer) is kind
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)  # type: ignore[reportUnknownMemberType]
    )


_MANY = 256  # ids from which one pass over the table's rows is faster than gathering them first


def _weighted_embedding(view: View, node: Node) -> Fused | None:
    """`weighted_sum(embedding(ids), weights)`: the rows are added as they are read, and never stand in memory."""
    rows = view.only(node.inputs[0]) if node.op == "weighted_sum" else None
    if rows is None or view.module_type(rows) != "Embedding":
        return None
    parts, ids, weights = path(str(rows.attrs["module"])), rows.inputs[0], node.inputs[1]
    if not isinstance(ids, str) or not isinstance(weights, str) or ":" in ids + weights:
        return None

    def run(root: nn.Module, env: Env) -> Any:
        layer, x = descend(root, parts), env[ids]
        if not untouched(layer, Embedding) or x.ndim != 2 or x.numel() < _MANY or x.device.type != "cpu":
            return NotImplemented
        return layer.weighted_sum(x, env[weights])  # type: ignore[operator]

    return Fused((rows.name,), run)


_PATTERNS: tuple[Callable[[View, Node], Fused | None], ...] = (_weighted_embedding,)
