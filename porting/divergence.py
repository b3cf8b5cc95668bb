"""Divergence: the first node at which the port and TensorFlow part, for a port that is not equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from porting.arrays import to_numpy
from porting.convert import Context, ConvertingEmitter
from porting.oracle import Oracle
from porting.tower import PortedTower
from porting.values import Constant, Value
from torch_towers.graph import Graph, TensorSpec
from torch_towers.inputs import read_column
from torch_towers.program import Program
from torch_towers.refusals import KERNEL_ERRORS, refusal

TOLERANCE = 1e-3
"""Relative to the values' RMS: a node whose float result is further away than this computes something else, or has been fed it."""


def first_difference(ported: PortedTower, oracle: Oracle, batch: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """A sentence that names the first node, in the order of computation, whose result differs; empty where none does.

    Both run the same flat graph op by op: TensorFlow its kernels, the port its converters, without any lift.
    """
    theirs = oracle.values(ported.model.path, ported.model.tags, ported.entry, batch)
    context = Context(ported.model)
    emitter = ConvertingEmitter(ported.tf_graph, context)
    emitter.run(ported.tf_graph, {})
    shown = {
        node.name: emitter.results[node.name]
        for node in ported.tf_graph.nodes
        if node.name in theirs and _is_tensor(emitter.results[node.name])
    }
    graph = emitter.graph({str(i): value for i, value in enumerate(shown.values())})
    ours = _run(graph, context, batch, ported.spec.inputs)
    if isinstance(ours, str):
        return f"op by op, without lifts, the port refuses the batch: {ours}"
    ops = {node.name: node.op for node in ported.tf_graph.nodes}
    for i, name in enumerate(shown):
        problem = _difference(to_numpy(ours[str(i)]), theirs[name])
        if problem:
            return f"the first node at which the two part is {ops[name]} {name!r}: {problem}"
    return (
        "op by op, as the graph is written, every node is equal: a lift changed the numbers, or what TensorFlow's graph "
        "optimizer and oneDNN do (docs/served.md)"
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Constant) or (isinstance(value, Value) and value.dtype not in ("variant", "size"))


def _run(
    graph: Graph, context: Context, batch: Mapping[str, Any], specs: tuple[TensorSpec, ...]
) -> dict[str, Any] | str:
    program = Program(graph, context.store)
    given = {spec.name: read_column(batch[spec.name], spec) for spec in specs}
    try:
        with torch.inference_mode():
            return program(**given)
    except KERNEL_ERRORS as error:
        return refusal(program, given, error)


def _difference(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> str:
    if ours.shape != theirs.shape:
        return f"its shape is {list(ours.shape)}, TensorFlow's {list(theirs.shape)}"
    if theirs.dtype.kind not in "fc":
        wrong = np.flatnonzero((ours != theirs).reshape(-1))
        if not wrong.size:
            return ""
        at = int(wrong[0])
        return f"element {at} is {ours.reshape(-1)[at]!r}, TensorFlow's {theirs.reshape(-1)[at]!r}"
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return "NaN or infinities stand in other places than in TensorFlow's"
    scale = float(np.sqrt(np.mean(np.square(theirs[finite], dtype=np.float64)))) if finite.any() else 0.0
    worst = float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0))
    return f"it is up to {worst:.1e} away, of values around {scale:.1e}" if worst > TOLERANCE * scale else ""
