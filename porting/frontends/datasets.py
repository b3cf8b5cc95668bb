"""Computes the elements of a tf.data pipeline over constants at port time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from porting.conversion.convert import Context, convert
from porting.errors import PortingError
from porting.flat_graph.flatten import as_graph, flatten
from porting.saved_model import SavedModel
from torch_towers.formats.npz import as_stored, to_numpy
from torch_towers.graph.graph import Graph, Node, node_of
from torch_towers.program.program import Program

Element = tuple[np.ndarray[Any, Any], ...]
Constants = Callable[[str], "np.ndarray[Any, Any] | None"]
_SAME = ("PrefetchDataset", "CacheDataset", "OptionsDataset", "ModelDataset", "AssertCardinalityDataset")
_MAPS = ("MapDataset", "ParallelMapDataset")


def elements(ref: str, nodes: Mapping[str, Node], constant: Constants, model: SavedModel) -> Iterator[Element]:
    """The elements of the dataset `ref`, in order, each a tuple of arrays. `constant` returns the value of a reference.

    Errors: `PortingError` names the op whose elements are unknown before the graph runs: files, generators, random
    order.
    """
    node = nodes[node_of(ref)]
    if node.op == "Identity" or node.op.startswith(_SAME):
        yield from elements(node.inputs[0], nodes, constant, model)
    elif node.op == "TensorSliceDataset":
        parts = [_known(operand, node, constant) for operand in node.inputs]
        for row in range(len(parts[0])):
            yield tuple(part[row : row + 1].reshape(part.shape[1:]) for part in parts)
    elif node.op == "TensorDataset":
        yield tuple(_known(operand, node, constant) for operand in node.inputs)
    elif node.op == "ZipDataset":
        for several in zip(*(elements(operand, nodes, constant, model) for operand in node.inputs), strict=False):
            yield tuple(part for one in several for part in one)
    elif node.op == "ConcatenateDataset":
        for operand in node.inputs:
            yield from elements(operand, nodes, constant, model)
    elif node.op in ("BatchDataset", "BatchDatasetV2", "ParallelBatchDataset"):
        size = int(_known(node.inputs[1], node, constant))
        drops = node.op != "BatchDataset" and bool(_known(node.inputs[-1], node, constant))
        yield from _batches(elements(node.inputs[0], nodes, constant, model), size, drops)
    elif node.op in ("TakeDataset", "SkipDataset"):
        count = int(_known(node.inputs[1], node, constant))
        for i, element in enumerate(elements(node.inputs[0], nodes, constant, model)):
            if (count < 0 or i < count) == (node.op == "TakeDataset"):
                yield element
    elif node.op.startswith(_MAPS):
        yield from _mapped(node, nodes, constant, model)
    else:
        raise PortingError(f"{node.op} {node.name!r} gives elements that are not known before the graph runs")


def _known(ref: str, node: Node, constant: Constants) -> np.ndarray[Any, Any]:
    value = constant(ref)
    if value is None:
        raise PortingError(f"{node.op} {node.name!r} takes {ref!r}, which is not a constant")
    return value


def _batches(rows: Iterator[Element], size: int, drops_rest: bool) -> Iterator[Element]:
    pending: list[Element] = []
    for row in rows:
        pending.append(row)
        if len(pending) == size:
            yield _stacked(pending)
            pending = []
    if pending and not drops_rest:
        yield _stacked(pending)


def _stacked(rows: list[Element]) -> Element:
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def _mapped(node: Node, nodes: Mapping[str, Node], constant: Constants, model: SavedModel) -> Iterator[Element]:
    """Applies the function to each element: the port itself runs it."""
    function = model.functions[node.attrs["f"].name]
    body = flatten(as_graph(function), model.functions)
    below = elements(node.inputs[0], nodes, constant, model)
    if any(inner.op == "AssignAddVariableOp" for inner in body.nodes):
        yield from _enumerated(node, body, below)
        return
    count = len(node.attrs.get("Targuments", ()))
    captured = [_known(operand, node, constant) for operand in node.inputs[1 : 1 + count]]
    context = Context(model)
    graph, _ = convert(body, context)
    program = Program(graph, context.store)
    names = [spec.name for spec in graph.inputs]
    for element in below:
        operands = [as_stored(part) for part in (*element, *captured)]
        with torch.inference_mode():
            results = program(**dict(zip(names, operands, strict=True)))
        yield tuple(to_numpy(results[name]) for name in graph.outputs)


def _enumerated(node: Node, body: Graph, below: Iterator[Element]) -> Iterator[Element]:
    """Rows numbered by a counter in a variable, as in TensorFlow Recommenders' `Streaming`.

    Source: Streaming.call, enumerate_rows, tensorflow_recommenders/layers/factorized_top_k.py.
    """
    nodes = {inner.name: inner for inner in body.nodes}

    def made_by(ref: str) -> Node | None:
        found = nodes.get(node_of(ref))
        while found is not None and found.op == "Identity":
            if node_of(found.inputs[0]) not in nodes:
                return None
            found = nodes[node_of(found.inputs[0])]
        return found

    outputs = [made_by(ref) for ref in body.outputs.values()]
    if len(outputs) != 2 or outputs[0] is None or outputs[0].op != "Range" or outputs[1] is not None:
        raise PortingError(f"{node.op} {node.name!r} counts in an unsupported way")
    start = 0
    for element in below:
        count = len(element[0])
        yield np.arange(start, start + count, dtype=np.int32), *element
        start += count
