"""Finds the first node at which an unequal port and TensorFlow differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from porting.conversion.convert import Context, ConvertingEmitter
from porting.conversion.values import Constant, Value
from porting.flat_graph.opened import BRANCHES, LOOPS, Opening, body_of, goes_on, inside, opened
from porting.parity.oracle import Oracle
from porting.parity.report import shown
from porting.tower import PortedTower
from torch_towers.formats.npz import to_numpy
from torch_towers.graph.graph import Graph, Node, TensorSpec, node_of
from torch_towers.inputs.reader import read_column
from torch_towers.ops.control_flow import holds
from torch_towers.program.binding import Env, getter
from torch_towers.program.program import Program
from torch_towers.program.refusals import KERNEL_ERRORS, refusal

TOLERANCES = (1e-3, 2e-5)
"""Relative to the values' RMS (a millionth of it for float64): a float result that differs by more than the first
tolerance is computed differently; if there is none, the second tolerance finds magnified rounding."""
_FINER = {np.dtype(np.float64): 1e-6}
_LONG = 120  # characters of an input to show

Arrays = Mapping[str, np.ndarray[Any, Any]]


DEEP = 6  # nesting depth of branches and loops to search
_ROUNDS = 32  # loop iterations to unroll
_NODES = 2000  # limit for their nodes


@dataclass(frozen=True)
class Divergence:
    """The result of running both sides node by node."""

    found: bool  # a node differs, or one side refuses it
    said: str  # a sentence


@dataclass(frozen=True)
class _Seen:
    """Both sides of one flat graph, node by node. `node`: the first that differs."""

    graph: Graph
    node: Node | None
    problem: str
    theirs: Arrays
    compared: int
    nodes: int
    refused: str


def first_difference(ported: PortedTower, oracle: Oracle, batch: Arrays) -> Divergence:
    """The first node, in topological order, whose result differs; if none does, what was compared.

    Both run the same flat graph op by op: TensorFlow its kernels, the port its converters, without lifting. A graph
    that fails on one side is compared up to there. If a branch or loop differs, the search continues inside of it.
    """
    seen = _see(ported, oracle, batch, ())
    openings: list[Opening] = []
    said = ""
    while seen.node is not None and len(openings) < DEEP and not ported.cut.without_dropout:
        number = _opening(seen, seen.node, batch, ported)
        if number is None:
            break
        openings.append((seen.node.name, number))
        inner = _see(ported, oracle, batch, tuple(openings))
        if inner.node is None:
            said = f"; inside of it, {inner.compared} nodes were compared, and are equal"
            break
        seen = inner
    if seen.node is not None:
        return Divergence(True, f"the first node that differs is {described(seen.node)}: {seen.problem}{said}")
    if seen.refused:
        return Divergence(True, f"op by op, the port refuses what TensorFlow computes: {seen.refused}")
    return Divergence(False, _all_equal(ported, seen.compared, seen.nodes))


def _opening(seen: _Seen, node: Node, batch: Arrays, ported: PortedTower) -> int | None:
    """The index of the taken branch, or the number of loop iterations to unroll; None if `node` is neither, or it is
    unknown."""
    if node.op in LOOPS:
        body = body_of(node, 0)
        size = len(body.nodes if isinstance(body, Graph) else ported.model.functions[body.name].nodes)
        return max(1, min(_ROUNDS, _NODES // max(1, size)))
    if node.op not in BRANCHES:
        return None
    value = {**batch, **seen.theirs}.get(node_of(node.inputs[0]))  # a predicate is its node's first result
    if value is None:
        return None
    return int(value) if "branches" in node.attrs else int(holds(value))


def _see(ported: PortedTower, oracle: Oracle, batch: Arrays, openings: tuple[Opening, ...]) -> _Seen:
    """Compares node by node, inside the last of the openings if there are any."""
    where = (ported.model.path, ported.model.tags, ported.entry)
    theirs = oracle.values(*where, batch, replace(ported.cut, openings=openings))
    flat = opened(ported.tf_graph, openings, ported.model.functions)
    context = Context(ported.model)
    emitter = ConvertingEmitter(flat, context)
    emitter.run(flat, {})
    looked_at = _inside(flat, openings, theirs)
    values = {**emitter.results, **emitter.others}
    nodes = _by_result(looked_at, values)
    compared = [ref for ref in nodes if ref in theirs]
    graph = emitter.graph({str(i): values[ref] for i, ref in enumerate(compared)})
    ours, refused = _run(graph, context, batch, ported.spec.inputs)
    for tolerance, (i, name) in itertools.product(TOLERANCES, enumerate(compared)):
        problem = difference(to_numpy(ours[str(i)]), theirs[name], batch, tolerance) if str(i) in ours else ""
        if problem:
            return _Seen(flat, nodes[name], problem, theirs, _count(compared), _count(nodes), refused)
    return _Seen(flat, None, "", theirs, _count(compared), _count(nodes), refused)


def _by_result(looked_at: Sequence[Node], values: Mapping[str, Any]) -> dict[str, Node]:
    """Every tensor result by reference, in topological order, with its node."""
    order = {node.name: i for i, node in enumerate(looked_at)}
    refs = [ref for ref, value in values.items() if node_of(ref) in order and _is_tensor(value)]
    return {ref: looked_at[order[node_of(ref)]] for ref in sorted(refs, key=lambda ref: order[node_of(ref)])}


def _count(refs: Iterable[str]) -> int:
    """The number of nodes with these results."""
    return len({node_of(ref) for ref in refs})


def _inside(flat: Graph, openings: Sequence[Opening], theirs: Arrays) -> list[Node]:
    """The nodes of the branch or loop iterations opened last; without any, all nodes."""
    if not openings:
        return list(flat.nodes)
    name, number = openings[-1]
    starts = [] if goes_on(name, 0) in flat.outputs else [inside(name)]
    for i in range(number if not starts else 0):
        before = theirs.get(node_of(flat.outputs[goes_on(name, i)]))
        if before is not None and not holds(before):
            break
        starts.append(inside(name, i))
    return [node for node in flat.nodes if node.name.startswith(tuple(starts))]


def _all_equal(ported: PortedTower, compared: int, nodes: int) -> str:
    """The statement if no node differs, limited to what was compared."""
    if compared < nodes:
        return (
            f"op by op, {compared} of {nodes} nodes were compared, and are equal; TensorFlow gives no value of the others when it "
            "runs op by op, so the cause is among them, or in a rewrite of the whole graph"
        )
    causes = [f"a lift ({', '.join(sorted(ported.lifted))})"] if ported.lifted else []
    if ported.served.optimizer:
        causes.append("what TensorFlow's graph optimizer does (port with --optimizer off to see)")
    if ported.served.onednn:
        causes.append("what oneDNN does (port with --onednn off to see)")
    blame = f"what remains is {', or '.join(causes)}" if causes else "what remains is the sum of their roundings"
    return f"op by op, as the graph is written, all {nodes} nodes are equal on this batch: {blame}"


def described(node: Node) -> str:
    operands = [repr(name) for name in node.inputs if not name.startswith("^")]
    return f"{node.op} {node.name!r}" + (f" of {', '.join(operands)}" if operands else "")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Constant) or (isinstance(value, Value) and value.dtype not in ("variant", "size"))


def _run(
    graph: Graph, context: Context, batch: Arrays, specs: tuple[TensorSpec, ...]
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """The outputs of a graph up to the node that fails, and the reason ("" if none fails)."""
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
        except KeyError:  # depends on the refused node
            continue
    return found, refused


def difference(
    ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], batch: Arrays, tolerance: float = TOLERANCES[0]
) -> str:
    """Describes how one result differs, with both values and the inputs that show it; "" if it does not."""
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
    if not away.max(initial=0.0) > tolerance * _FINER.get(theirs.dtype, 1.0) * scale:
        return ""
    return f"{_first(ours, theirs, away == away.max(), batch)} (the furthest away, of values around {scale:.1e})"


def _first(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any], batch: Arrays) -> str:
    """Both values at the first wrong position, and the inputs of its row; "" if there is none."""
    found = np.argwhere(wrong)
    if not len(found):
        return ""
    at = tuple(int(i) for i in found[0])
    place = f"at {list(at)} " if at else ""
    return f"{place}the port gives {shown(ours[at])}, TensorFlow {shown(theirs[at])}{_inputs(theirs.shape, at, batch)}"


def _inputs(shape: tuple[int, ...], at: tuple[int, ...], batch: Arrays) -> str:
    """The inputs of the row, if the first axis is the batch."""
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
