"""A graph at another floating-point precision: float64 as a reference, float16 and bfloat16 for speed and memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from torch_towers.dtypes import FLOATS, TORCH_DTYPES
from torch_towers.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.program import used_names
from torch_towers.steps import Store


@contextmanager
def full_precision() -> Generator[None]:
    """Convolutions on CUDA as exact as products of matrices: TF32 where it was asked for there (torch's default for them alone is on)."""
    convolutions: Any = torch.backends.cudnn
    before = convolutions.allow_tf32
    convolutions.allow_tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        yield
    finally:
        convolutions.allow_tf32 = before


def with_float(graph: Graph, store: Store, dtype: str) -> tuple[Graph, Store]:
    """`graph` and what it names with `dtype` ("float64", "float16", "bfloat16") in the place of float32.

    Other floats that TensorFlow's graph asks for by name stay: float64 stays float64. Strings and integers are untouched.
    """
    if dtype not in FLOATS:
        raise ValueError(f"{dtype!r} is not one of {', '.join(FLOATS)}")
    changed = dict(store)
    for name in used_names(graph):
        value = changed[name]
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            changed[name] = value.detach().to(TORCH_DTYPES[dtype])
    return float_graph(graph, dtype), changed


def float_graph(graph: Graph, dtype: str) -> Graph:
    """`graph` with `dtype` wherever it says float32: in its inputs, attributes, modules, and the graphs inside it."""
    return Graph(
        tuple(_spec(spec, dtype) for spec in graph.inputs),
        tuple(_node(node, dtype) for node in graph.nodes),
        graph.outputs,
        {name: ModuleSpec(spec.type, _values(spec.args, dtype)) for name, spec in graph.modules.items()},
    )


def _spec(spec: TensorSpec, dtype: str) -> TensorSpec:
    return replace(spec, dtype=dtype) if spec.dtype == "float32" else spec


def _node(node: Node, dtype: str) -> Node:
    if node.op in ("parameter", "constant", "module") or not node.attrs:
        return node
    return replace(node, attrs=_values(node.attrs, dtype))


def _values(values: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    return {key: _value(value, dtype) for key, value in values.items()}


def _value(value: Any, dtype: str) -> Any:
    if isinstance(value, Graph):
        return float_graph(value, dtype)
    if isinstance(value, tuple):
        return tuple(_value(item, dtype) for item in value)  # type: ignore[reportUnknownVariableType]
    return dtype if isinstance(value, str) and value == "float32" else value
