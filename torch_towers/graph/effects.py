"""Side effects of our ops: which nodes of a torch graph are live without a reader.

`porting/flat_graph/effects.py` does the same for TF ops. The two are separate because the vocabularies differ: any TF
op without a converter may have an effect, which dataflow follows; of our ops only `check` has one.
"""

from __future__ import annotations

from torch_towers.graph.graph import Node, bodies

EFFECTS = frozenset({"check"})
"""Ops that are live without a reader: TensorFlow's assertions."""


def has_effect(node: Node) -> bool:
    """Whether `node` is a check, or a branch or loop that contains one."""
    return node.op in EFFECTS or any(has_effect(inner) for body in bodies(node) for inner in body.nodes)
