"""A graph at another floating-point precision: float64 for exactness, float16 and bfloat16 for speed and memory."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from torch_towers.graph.graph import Graph, ModuleSpec, Node


@contextmanager
def full_precision() -> Generator[None]:
    """Disables TF32 for CUDA convolutions, where torch enables it by default, to match the precision of matmuls."""
    convolutions: Any = torch.backends.cudnn
    before = convolutions.allow_tf32
    convolutions.allow_tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        yield
    finally:
        convolutions.allow_tf32 = before


def float_graph(graph: Graph, dtype: str, of: Collection[str] = ("float32",)) -> Graph:
    """`graph` with `dtype` instead of the dtypes `of`: in inputs, attributes, modules, and nested graphs."""
    return Graph(
        tuple(replace(spec, dtype=dtype) if spec.dtype in of else spec for spec in graph.inputs),
        tuple(_node(node, dtype, of) for node in graph.nodes),
        graph.outputs,
        {name: ModuleSpec(spec.type, _values(spec.args, dtype, of)) for name, spec in graph.modules.items()},
    )


def _node(node: Node, dtype: str, of: Collection[str]) -> Node:
    if node.op in ("parameter", "constant", "module") or not node.attrs:
        return node
    return replace(node, attrs=_values(node.attrs, dtype, of))


def _values(values: Mapping[str, Any], dtype: str, of: Collection[str]) -> dict[str, Any]:
    return {key: _value(value, dtype, of) for key, value in values.items()}


def _value(value: Any, dtype: str, of: Collection[str]) -> Any:
    if isinstance(value, Graph):
        return float_graph(value, dtype, of)
    if isinstance(value, tuple):
        return tuple(_value(item, dtype, of) for item in value)  # type: ignore[reportUnknownVariableType]
    return dtype if isinstance(value, str) and value in of else value
