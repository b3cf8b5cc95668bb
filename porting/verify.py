"""Verify: runs a ported tower beside TensorFlow, on inputs made from its own graph, and reports how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from porting import samples
from porting.arrays import to_numpy
from porting.divergence import first_difference
from porting.oracle import Oracle
from porting.parity import ParityReport, compare
from porting.retrieval import Retrieval
from porting.tower import PortedTower
from torch_towers.errors import InputError
from torch_towers.similarity import top_k
from torch_towers.tower import Tower

Arrays = Mapping[str, np.ndarray[Any, Any]]


def verify_with_tensorflow(ported: PortedTower, oracle: Oracle, batches: Sequence[Arrays] = ()) -> ParityReport:
    """The port against TensorFlow on `batches`, or on inputs made from the graph itself where none are given."""
    asked = list(batches) or samples.batches(ported.tf_graph, ported.model)
    where = (ported.model.path, ported.model.tags, ported.entry)
    index = _answering(ported)
    part = replace(ported.cut, fetches={}) if index else ported.cut
    answers = oracle.run_cut(*where, part, asked) if part else oracle.run(*where, asked)
    names = list(ported.entry_outputs) if index else list(ported.tf_graph.outputs)
    theirs = [answer if isinstance(answer, str) else _named(answer, names) for answer in answers]
    report = _report(ported, asked, theirs, f"TensorFlow {oracle.version}")
    _compare_ids(report, ported, oracle, asked, theirs)
    if not report.passed and not ported.cut:
        report.failures += _located(ported, oracle, asked, theirs)
    return report


def _compare_ids(
    report: ParityReport, ported: PortedTower, oracle: Oracle, asked: Sequence[Arrays], theirs: Sequence[Any]
) -> None:
    """Adds the ids and masks that the preprocessing gives, on the batches that TensorFlow answers, against its own kernels' results."""
    answered = [batch for batch, answer in zip(asked, theirs, strict=True) if not isinstance(answer, str)]
    if not ported.ids or not answered:
        return
    where = (ported.model.path, ported.model.tags, ported.entry)
    expected = oracle.run_cut(*where, replace(ported.cut, fetches=ported.ids), answered)
    tower = ported.tower()
    pairs = [
        ({name: to_numpy(found) for name, found in tower.preprocess(dict(batch)).items()}, values)
        for batch, values in zip(answered, expected, strict=True)
        if not isinstance(values, str)
    ]
    report.compare_ids(pairs)


def _answering(ported: PortedTower) -> Retrieval | None:
    """The index that the tower was cut from, where the whole can be asked for scores: then that is what is compared."""
    found = ported.retrieval
    return found if found is not None and found.candidates is not None and found.scores is not None else None


def _located(ported: PortedTower, oracle: Oracle, asked: Sequence[Arrays], theirs: Sequence[Any]) -> list[str]:
    """Where a port that is not equal goes wrong, on the first batch that TensorFlow answered."""
    answered = next((batch for batch, answer in zip(asked, theirs, strict=True) if not isinstance(answer, str)), None)
    if answered is None:
        return []
    return [first_difference(ported, oracle, answered)]


def verify_with_reference(ported: PortedTower, arrays: Arrays) -> ParityReport:
    """The port against recorded inputs and outputs (arrays named `<signature>|in|<input>`, `<signature>|out|<output>`)."""
    names = list(ported.entry_outputs) if _answering(ported) else list(ported.tf_graph.outputs)
    inputs, outputs = samples.from_reference(arrays, ported.entry, ported.tf_graph.inputs, names)
    return _report(ported, [inputs], [outputs], "recorded outputs")


def not_compared(why_not: str) -> ParityReport:
    """The report where nothing is compared: there is no TensorFlow and nothing recorded, or nobody asked."""
    return ParityReport("nothing", why_not)


def _report(ported: PortedTower, asked: Sequence[Arrays], theirs: Sequence[Any], compared_with: str) -> ParityReport:
    index = _answering(ported)
    tower = ported.tower()
    ours = [answer(tower, batch, index) for batch in asked]
    tower = ported.tower().to(dtype=torch.float64)
    exact = [answer(tower, batch, index) for batch in asked]
    if index is not None:  # what else the whole gives is not in the split
        theirs = [t if isinstance(t, str) else {name: t[name] for name in _both(index)} for t in theirs]
    return compare(ours, theirs, exact, compared_with=compared_with)


def answer(tower: Tower, batch: Arrays, index: Retrieval | None = None) -> dict[str, np.ndarray[Any, Any]] | str:
    """Every output of the tower for one batch, as numpy; the message where it refuses the batch.

    With an index, what that answers for the tower's embedding, by the names of the whole entry's outputs.
    """
    try:
        with torch.inference_mode():
            found = tower(dict(batch))
            if index is None:
                return {name: to_numpy(value) for name, value in found.items()}
            return _retrieved(found[tower.embedding], index)
    except InputError as error:
        return str(error)


def _retrieved(embedding: Any, index: Retrieval) -> dict[str, np.ndarray[Any, Any]]:
    """Scores and identifiers of the best candidates, as the index gives them."""
    assert index.candidates is not None
    candidates = torch.from_numpy(np.array(index.candidates)).to(embedding.dtype)
    scores, rows = top_k(embedding, candidates, index.k or 10)
    ids = rows.to(torch.int32).numpy() if index.identifiers is None else index.identifiers[rows.numpy()]
    return {name: value for name, value in zip((index.scores, index.ids), (to_numpy(scores), ids), strict=True) if name}


def _both(index: Retrieval) -> list[str]:
    return [name for name in (index.scores, index.ids) if name]


def _named(arrays: Arrays, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """TensorFlow's results by our names: a restored function's results come numbered."""
    if set(arrays) == set(names):
        return dict(arrays)
    return {name: arrays[str(i)] for i, name in enumerate(names)}
