"""Verify: runs a ported tower beside TensorFlow, on inputs made from its own graph, and reports how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from porting import samples
from porting.arrays import to_numpy
from porting.divergence import first_difference
from porting.oracle import Oracle
from porting.parity import ParityReport, compare
from porting.tower import PortedTower
from torch_towers.errors import InputError
from torch_towers.tower import Tower

Arrays = Mapping[str, np.ndarray[Any, Any]]


def verify_with_tensorflow(ported: PortedTower, oracle: Oracle, batches: Sequence[Arrays] = ()) -> ParityReport:
    """The port against TensorFlow on `batches`, or on inputs made from the graph itself where none are given."""
    asked = list(batches) or samples.batches(ported.tf_graph, ported.model)
    answers = oracle.run(ported.model.path, ported.model.tags, ported.entry, asked)
    names = list(ported.tf_graph.outputs)
    theirs = [answer if isinstance(answer, str) else _named(answer, names) for answer in answers]
    report = _report(ported, asked, theirs, f"TensorFlow {oracle.version}")
    if not report.passed:
        report.failures += _located(ported, oracle, asked, theirs)
    return report


def _located(ported: PortedTower, oracle: Oracle, asked: Sequence[Arrays], theirs: Sequence[Any]) -> list[str]:
    """Where a port that is not equal goes wrong, on the first batch that TensorFlow answered."""
    answered = next((batch for batch, answer in zip(asked, theirs, strict=True) if not isinstance(answer, str)), None)
    if answered is None:
        return []
    return [first_difference(ported, oracle, answered)]


def verify_with_reference(ported: PortedTower, arrays: Arrays) -> ParityReport:
    """The port against recorded inputs and outputs (arrays named `<signature>|in|<input>`, `<signature>|out|<output>`)."""
    inputs, outputs = samples.from_reference(arrays, ported.entry, ported.tf_graph)
    return _report(ported, [inputs], [outputs], "recorded outputs")


def not_compared() -> ParityReport:
    """The report where there is no TensorFlow and nothing recorded."""
    return ParityReport("nothing")


def _report(ported: PortedTower, asked: Sequence[Arrays], theirs: Sequence[Any], compared_with: str) -> ParityReport:
    tower = ported.tower()
    ours = [answer(tower, batch) for batch in asked]
    tower = ported.tower().to(dtype=torch.float64)
    exact = [answer(tower, batch) for batch in asked]
    return compare(ours, theirs, exact, compared_with=compared_with)


def answer(tower: Tower, batch: Arrays) -> dict[str, np.ndarray[Any, Any]] | str:
    """Every output of the tower for one batch, as numpy; the message where it refuses the batch."""
    try:
        with torch.inference_mode():
            return {name: to_numpy(value) for name, value in tower(dict(batch)).items()}
    except InputError as error:
        return str(error)


def _named(arrays: Arrays, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """TensorFlow's results by our names: a restored function's results come numbered."""
    if set(arrays) == set(names):
        return dict(arrays)
    return {name: arrays[str(i)] for i, name in enumerate(names)}
