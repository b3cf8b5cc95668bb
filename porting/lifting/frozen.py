"""Frozen graphs: graphs without variables, whose weights are constants.

TensorFlow 1's `freeze_graph` and converters from other formats (ONNX, TFLite) write them. Their kernels and what is added to
the products are weights all the same; they stay as they are in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from torch_towers.graph.graph import Graph, Node, node_of
from torch_towers.program.program import walk

_KERNELS = {
    "matmul": (0, 1),
    "conv": (1,),
    "conv_transpose": (1,),
    "einsum": (0, 1),
    "gather": (0,),
    "batch_norm": (1, 2, 3, 4),
}
"""The operands of an op that are weights where they are constants."""
_LEAST = 2  # axes of a kernel: a vector in a product is no weight of a layer
_PASSES = frozenset({"reshape", "transpose"})
"""Ops between a product and what is added to it."""


def with_weights(graph: Graph, store: Mapping[str, Any]) -> tuple[Graph, frozenset[str]]:
    """A frozen graph with its weights as such, and their names; another graph as it is."""
    if any(node.op == "parameter" for node in walk(graph)):
        return graph, frozenset()
    nodes = {node.name: node for node in graph.nodes}
    weights = {name for node in graph.nodes for name in (*_kernels(node, nodes, store), *_added(node, nodes, store))}
    tensors = frozenset(str(nodes[name].attrs["tensor"]) for name in weights)
    changed = [replace(node, op="parameter") if node.name in weights else node for node in graph.nodes]
    return replace(graph, nodes=tuple(changed)), tensors


def _kernels(node: Node, nodes: Mapping[str, Node], store: Mapping[str, Any]) -> list[str]:
    """The constants that a product has as weights, besides what is computed."""
    places = _KERNELS.get(node.op, ())
    least = 1 if node.op == "batch_norm" else _LEAST
    found = [
        node_of(node.inputs[i]) for i in places if i < len(node.inputs) and _rank(node.inputs[i], nodes, store) >= least
    ]
    return found if len(found) < len(node.inputs) else []


def _added(node: Node, nodes: Mapping[str, Node], store: Mapping[str, Any]) -> list[str]:
    """The constant that is added to a product."""
    if node.op not in ("add", "bias_add") or len(node.inputs) != 2:
        return []
    found = [ref for ref in node.inputs if _rank(ref, nodes, store) >= 1]
    others = [ref for ref in node.inputs if ref not in found]
    return [node_of(found[0])] if len(found) == len(others) == 1 and _is_product(others[0], nodes, store) else []


def _is_product(ref: Any, nodes: Mapping[str, Node], store: Mapping[str, Any]) -> bool:
    node = nodes.get(node_of(ref)) if isinstance(ref, str) else None
    while node is not None and node.op in _PASSES:
        node = nodes.get(node_of(node.inputs[0]))  # type: ignore[arg-type]
    return node is not None and node.op != "gather" and bool(_kernels(node, nodes, store))


def _rank(ref: Any, nodes: Mapping[str, Node], store: Mapping[str, Any]) -> int:
    """The number of axes of a constant of floats; 0 for what is none."""
    node = nodes.get(node_of(ref)) if isinstance(ref, str) else None
    value = store[str(node.attrs["tensor"])] if node is not None and node.op == "constant" else None
    return value.ndim if isinstance(value, Tensor) and value.is_floating_point() else 0
