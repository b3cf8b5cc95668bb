"""Divergence: the first node at which the port and TensorFlow part, for a port that is not equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from porting.conversion.convert import Context, ConvertingEmitter
from porting.conversion.values import Constant, Value
from porting.parity.oracle import Oracle
from porting.parity.report import shown
from porting.tower import PortedTower
from torch_towers.formats.npz import to_numpy
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.inputs.reader import read_column
from torch_towers.program.binding import Env, getter
from torch_towers.program.program import Program
from torch_towers.program.refusals import KERNEL_ERRORS, refusal

TOLERANCE = 1e-3
"""Relative to the values' RMS: a node whose float result is further away than this computes something else, or has been fed it."""
_LONG = 120  # characters of an input that are shown

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Divergence:
    """What a run of both sides, node by node, has shown."""

    found: bool  # a node differs, or one side refuses it
    said: str  # a sentence


def first_difference(ported: PortedTower, oracle: Oracle, batch: Arrays) -> Divergence:
    """The first node, in the order of computation, whose result differs; where none does, what was compared.

    Both run the same flat graph op by op: TensorFlow its kernels, the port its converters, without any lift. A graph that stops
    on one side is compared up to there.
    """
    theirs = oracle.values(ported.model.path, ported.model.tags, ported.entry, batch)
    context = Context(ported.model)
    emitter = ConvertingEmitter(ported.tf_graph, context)
    emitter.run(ported.tf_graph, {})
    nodes = {node.name: node for node in ported.tf_graph.nodes if _is_tensor(emitter.results[node.name])}
    compared = [name for name in nodes if name in theirs]
    graph = emitter.graph({str(i): emitter.results[name] for i, name in enumerate(compared)})
    ours, refused = _run(graph, context, batch, ported.spec.inputs)
    for i, name in enumerate(compared):
        problem = _difference(to_numpy(ours[str(i)]), theirs[name], batch) if str(i) in ours else ""
        if problem:
            return Divergence(True, f"the first node at which the two part is {_described(nodes[name])}: {problem}")
    if refused:
        return Divergence(True, f"op by op, the port refuses what TensorFlow computes: {refused}")
    return Divergence(False, _all_equal(ported, len(compared), len(nodes)))


def _all_equal(ported: PortedTower, compared: int, nodes: int) -> str:
    """What is known where no node differs: never more than was looked at."""
    if compared < nodes:
        return (
            f"op by op, {compared} of {nodes} nodes were compared, and are equal; TensorFlow gives no value of the others when it "
            "runs op by op, so the cause is among them, or in what is done to the graph as a whole"
        )
    causes = [f"a lift ({', '.join(sorted(ported.lifted))})"] if ported.lifted else []
    if ported.served.optimizer:
        causes.append("what TensorFlow's graph optimizer does (port with --optimizer off to see)")
    if ported.served.onednn:
        causes.append("what oneDNN does (port with --onednn off to see)")
    blame = f"what remains is {', or '.join(causes)}" if causes else "what remains is the sum of their roundings"
    return f"op by op, as the graph is written, all {nodes} nodes are equal on this batch: {blame}"


def _described(node: Node) -> str:
    operands = [repr(name) for name in node.inputs if not name.startswith("^")]
    return f"{node.op} {node.name!r}" + (f" of {', '.join(operands)}" if operands else "")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Constant) or (isinstance(value, Value) and value.dtype not in ("variant", "size"))


def _run(
    graph: Graph, context: Context, batch: Arrays, specs: tuple[TensorSpec, ...]
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """The outputs of a graph up to the node that cannot be computed, and why not ("" where all can)."""
    program = Program(graph, context.store)
    given = {spec.name: read_column(batch[spec.name], spec) for spec in specs}
    env: Env = dict(given)
    refused = ""
    with torch.inference_mode():
        for name, run in program.steps:
            try:
                env[name] = run(program, env)
            except KERNEL_ERRORS as error:
                refused = refusal(program, given, error)
                break
    found: dict[str, Any] = {}
    for name, ref in program.graph.outputs.items():
        try:
            found[name] = getter(ref)(env)
        except KeyError:  # behind the node that was refused
            continue
    return found, refused


def _difference(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], batch: Arrays) -> str:
    if ours.shape != theirs.shape:
        return f"its shape is {list(ours.shape)}, TensorFlow's {list(theirs.shape)}"
    if theirs.dtype.kind not in "fc":
        return _first(ours, theirs, ours != theirs, batch)
    finite = np.isfinite(theirs)
    odd = ~finite & ~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    if odd.any() or not np.isfinite(ours[finite]).all():
        return _first(ours, theirs, odd | (finite & ~np.isfinite(ours)), batch)
    away = np.zeros(theirs.shape)
    away[finite] = np.abs(ours[finite] - theirs[finite])
    scale = float(np.sqrt(np.mean(np.square(np.abs(theirs[finite]).astype(np.float64))))) if finite.any() else 0.0
    if not away.max(initial=0.0) > TOLERANCE * scale:
        return ""
    return f"{_first(ours, theirs, away == away.max(), batch)} (the furthest away, of values around {scale:.1e})"


def _first(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any], batch: Arrays) -> str:
    """Both values at the first place that is wrong, and the inputs of its row; "" where none is."""
    found = np.argwhere(wrong)
    if not len(found):
        return ""
    at = tuple(int(i) for i in found[0])
    place = f"at {list(at)} " if at else ""
    return f"{place}the port gives {shown(ours[at])}, TensorFlow {shown(theirs[at])}{_inputs(theirs.shape, at, batch)}"


def _inputs(shape: tuple[int, ...], at: tuple[int, ...], batch: Arrays) -> str:
    """The inputs of the row, where the first axis is the batch's rows."""
    rows = {array.shape[0] if array.ndim else None for array in batch.values()}
    if not at or rows != {shape[0]}:
        return ""
    each = [f"{name} = {_short(array[at[0]])}" for name, array in batch.items()]
    return f", for row {at[0]}: {', '.join(each)}"


def _short(value: Any) -> str:
    array = np.asarray(value)
    if array.ndim and array.size > 8:
        return f"{array.dtype.name} {list(array.shape)}"
    text = str([shown(item) for item in array.reshape(-1)]).replace('"', "") if array.ndim else shown(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
