"""Effects of our ops: which nodes of a torch graph stay although nothing uses their results.

`porting/flat_graph/effects.py` asks the same of TF ops. There are two because there are two vocabularies: of TensorFlow's ops any may
have an effect that has no converter, and what it changes is followed by dataflow; of ours only `check` has one.
"""

from __future__ import annotations

from torch_towers.graph.graph import Graph, Node

EFFECTS = frozenset({"check"})
"""Ops that stay although nothing uses their results: TensorFlow's assertions."""


def has_effect(node: Node) -> bool:
    """Whether `node` is a check, or a branch or loop that holds one."""
    bodies = [value for value in node.attrs.values() if isinstance(value, Graph)]
    return node.op in EFFECTS or any(has_effect(inner) for body in bodies for inner in body.nodes)
