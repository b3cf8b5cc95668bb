"""Measurements on the recorded batches, for the plots of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.parity.answers import Ranking, answer
from torch_towers.parity.closeness import rms
from torch_towers.parity.recorded import Recorded
from torch_towers.tower import Tower

Array = np.ndarray[Any, Any]
TOP = 10  # ranks to compare


@dataclass(frozen=True, slots=True)
class Errors:
    """The error of each value of a float output against the float64 run, relative to the output's RMS: `[values]`
    both."""

    output: str
    port: Array
    tensorflow: Array


@dataclass(frozen=True, slots=True)
class Growth:
    """The RMS error of one node of the encoder, relative to the RMS of its values."""

    node: str
    error: float


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements of one tower. `embeddings` are the port's and TensorFlow's, row by row, if the tower has one."""

    rows: Mapping[str, int]
    errors: Sequence[Errors]
    growth: Sequence[Growth]
    embeddings: tuple[Array, Array] | None


def measure(tower: Tower, exact: Tower, recorded: Sequence[Recorded], ranking: Ranking | None = None) -> Measurements:
    """Runs the tower and its float64 twin `exact` on the batches that TensorFlow answered."""
    answered = [(batch, batch.outputs) for batch in recorded if not isinstance(batch.outputs, str)]
    rows: Counter[str] = Counter()
    for batch, outputs in answered:
        rows[batch.kind] += max((array.shape[0] for array in outputs.values() if array.ndim), default=1)
    decisive = [(batch, outputs) for batch, outputs in answered if batch.kind == "domain"]
    triples: list[tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]]] = []
    for batch, theirs in decisive:
        ours, reference = answer(tower, batch.inputs, ranking), answer(exact, batch.inputs, ranking)
        if not isinstance(ours, str) and not isinstance(reference, str):
            triples.append((ours, theirs, reference))
    return Measurements(
        dict(rows),
        _errors(triples),
        _growth(tower, exact, decisive[0][0].inputs) if decisive else [],
        _embeddings(tower, triples),
    )


def _errors(triples: Sequence[tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]]]) -> list[Errors]:
    found: list[Errors] = []
    for name, first in triples[0][1].items() if triples else ():
        if first.dtype.kind != "f" or any(ours[name].shape != theirs[name].shape for ours, theirs, _ in triples):
            continue
        ours, theirs, reference = (
            np.concatenate([triple[i][name].reshape(-1).astype(np.float64) for triple in triples]) for i in range(3)
        )
        finite = np.isfinite(ours) & np.isfinite(theirs) & np.isfinite(reference)
        scale = rms(reference[finite]) or 1.0
        port, tensorflow = (np.abs(values - reference)[finite] / scale for values in (ours, theirs))
        found.append(Errors(name, port, tensorflow))
    return found


def _growth(tower: Tower, exact: Tower, inputs: Mapping[str, Any]) -> list[Growth]:
    """The error of each float value in the encoder, in topological order; empty if a node does not run alone."""
    try:
        with torch.no_grad():
            ours, reference = tower.trace(dict(inputs))["encoder"], exact.trace(dict(inputs))["encoder"]
    except (IndexError, ValueError, RuntimeError):
        return []
    found: list[Growth] = []
    for node in tower.encoder.graph.nodes:
        pair = _float_pair(ours.get(node.name), reference.get(node.name))
        if pair is None or node.op in ("parameter", "constant"):
            continue
        scale, error = rms(pair[1]), rms(pair[0] - pair[1])
        if scale > 0 and np.isfinite(scale) and np.isfinite(error):
            found.append(Growth(node.name, error / scale))
    return found


def _float_pair(value: Any, true: Any) -> tuple[Array, Array] | None:
    """Both values in float64, if they are floats of equal shape."""
    if not isinstance(value, Tensor) or not isinstance(true, Tensor) or not value.is_floating_point():
        return None
    if value.shape != true.shape or not value.numel():
        return None
    return value.detach().double().cpu().numpy(), true.detach().double().cpu().numpy()


def _embeddings(tower: Tower, triples: Sequence[tuple[Mapping[str, Array], Mapping[str, Array], Any]]) -> Any:
    name = tower.spec.embedding
    if name is None or not triples or name not in triples[0][0] or triples[0][0][name].ndim != 2:
        return None
    return np.concatenate([ours[name] for ours, _, _ in triples]), np.concatenate(
        [theirs[name] for _, theirs, _ in triples]
    )


def agreement(query: tuple[Array, Array], candidate: tuple[Array, Array]) -> float:
    """The share of queries whose top candidates by dot product, at most `TOP`, are TensorFlow's in TensorFlow's order.

    Both arguments are the port's embeddings and TensorFlow's, `[n, dim]`.
    """
    ours, theirs = (q.astype(np.float64) @ c.astype(np.float64).T for q, c in zip(query, candidate, strict=True))
    ranks = [np.argsort(-scores, axis=1, kind="stable")[:, :TOP] for scores in (ours, theirs)]
    equal: Array = np.all(ranks[0] == ranks[1], axis=1)
    return float(equal.mean()) if len(ours) else 1.0
