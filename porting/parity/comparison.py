"""Runs a ported tower and TensorFlow on the same inputs, and reports the differences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from porting.errors import PortingError
from porting.frontends.retrieval import Retrieval
from porting.parity.bounds import judge
from porting.parity.divergence import difference, first_difference
from porting.parity.evidence import gather, given
from porting.parity.oracle import Oracle
from porting.parity.precision import precisions
from porting.parity.reference import reference
from porting.parity.report import ParityReport, compare
from porting.parity.served_divergence import first_served_difference
from porting.tower import PortedTower
from torch_towers.errors import InputError
from torch_towers.formats.npz import to_numpy
from torch_towers.parity.answers import Ranking, answer
from torch_towers.parity.recorded import Recorded, batches_of, is_recorded, of_reference
from torch_towers.parity.verify import INDEX_IDS, INDEX_SCORES
from torch_towers.tower import Tower

Arrays = Mapping[str, np.ndarray[Any, Any]]


def verify_with_tensorflow(ported: PortedTower, oracle: Oracle, batches: Sequence[Arrays] = ()) -> ParityReport:
    """Compares the port with TensorFlow on `batches`, by default on inputs generated from the graph."""
    where = (ported.model.path, ported.model.tags, ported.entry)
    index = _answering(ported)
    part = replace(ported.cut, fetches={}) if index else ported.cut

    def ask(asked: Sequence[Arrays], oracle: Oracle = oracle) -> list[Any]:
        return oracle.run_cut(*where, part, asked) if part else oracle.run(*where, asked)

    found = given(ask, batches) if batches else gather(ask, ported.tf_graph, ported.model, ported.inside)
    asked = [sample.inputs for sample in found.samples]
    names = list(ported.entry_outputs) if index else list(ported.tf_graph.outputs)
    theirs = [_named(each, names) for each in found.answers]
    ours = _answers(ported, ported.tower(), asked)
    mended, said = _without_onednn(oracle, ours, theirs, lambda i, other: _named(ask([asked[i]], other)[0], names))
    kinds = [sample.kind for sample in found.samples]
    report = _report(ported, asked, ours, theirs, f"TensorFlow {oracle.version}", kinds)
    report.wanted, report.mended, report.mended_said = found.wanted, mended, said
    ids = _compare_ids(report, ported, oracle, asked, theirs)
    report.recorded = [
        Recorded(sample.inputs, _by_index(their, index), inside, sample.kind)
        for sample, their, inside in zip(found.samples, theirs, ids, strict=True)
    ]
    if index is None:
        decisive = [batch for batch in report.recorded if batch.kind == "domain" and not isinstance(batch.outputs, str)]
        judge(report, ported, decisive)
    if not report.passed and index is None:
        report.failures += _located(ported, oracle, ours, report.recorded, report.ids)
    return report


def _without_onednn(
    oracle: Oracle, ours: Sequence[Any], theirs: list[Any], ask: Callable[[int, Oracle], Any]
) -> tuple[int, str]:
    """Puts TensorFlow's answers without oneDNN into `theirs`, for batches that only TensorFlow with oneDNN refuses or
    misshapes.

    oneDNN's convolution kernels give empty inputs (an empty text, no rows) the shape of their input, and the next op
    refuses it. A batch is repeated without oneDNN only if the port answers it, and counts only if both have the same
    shapes then. Returns the number of such batches, and what is wrong with the first.
    """
    disputed = [
        i for i, answer in enumerate(ours) if not isinstance(answer, str) and not _same_shapes(answer, theirs[i])
    ]
    other = oracle.without_onednn() if disputed else None
    if other is None:
        return 0, ""
    answers = {i: ask(i, other) for i in disputed}
    mended = {i: found for i, found in answers.items() if _same_shapes(ours[i], found)}
    said = next((theirs[i] if isinstance(theirs[i], str) else "it gives other shapes" for i in mended), "")
    for i, found in mended.items():
        theirs[i] = found
    return len(mended), said


def _same_shapes(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, str):
        return False
    return all(name not in ours or ours[name].shape == array.shape for name, array in theirs.items())


def _compare_ids(
    report: ParityReport, ported: PortedTower, oracle: Oracle, asked: Sequence[Arrays], theirs: Sequence[Any]
) -> list[Arrays]:
    """Compares the ids and masks of the preprocessing with TensorFlow's kernels, on the batches that TensorFlow
    answers.

    Returns TensorFlow's values for each batch, none if it refused the batch.
    """
    answered = [i for i, their in enumerate(theirs) if not isinstance(their, str)]
    ids: list[Arrays] = [{} for _ in asked]
    if not ported.ids or not answered:
        return ids
    where = (ported.model.path, ported.model.tags, ported.entry)
    expected = oracle.run_cut(*where, replace(ported.cut, fetches=ported.ids), [asked[i] for i in answered])
    for i, values in zip(answered, expected, strict=True):
        ids[i] = {} if isinstance(values, str) else values
    _check_ids(report, ported, [(asked[i], ids[i]) for i in answered])
    return ids


def _check_ids(report: ParityReport, ported: PortedTower, batches: Sequence[tuple[Arrays, Arrays]]) -> None:
    tower = ported.tower()
    pairs: list[tuple[Arrays, Arrays]] = []
    for batch, values in batches:
        with contextlib.suppress(InputError):  # the report already contains the port's refusal
            ours = {name: to_numpy(found) for name, found in tower.preprocess(dict(batch)).items()}
            pairs += [(ours, values)] if values else []
    report.compare_ids(pairs)


def _by_index(answer: Any, index: Retrieval | None) -> Any:
    """An answer for recording: scores and identifiers of an index get reserved names."""
    if index is None or isinstance(answer, str):
        return answer
    names = {index.scores: INDEX_SCORES, index.ids: INDEX_IDS}
    return {recorded: answer[name] for name, recorded in names.items() if name is not None}


def _answering(ported: PortedTower) -> Retrieval | None:
    """The index that the tower comes from, if the whole entry returns scores: then its answers are compared."""
    found = ported.retrieval
    return found if found is not None and found.candidates is not None and found.scores is not None else None


_LOOKED_AT = 4  # maximum batches to run node by node: each takes seconds for a large tower


def _located(
    ported: PortedTower, oracle: Oracle, ours: Sequence[Any], batches: Sequence[Recorded], ids: Mapping[str, Any]
) -> list[str]:
    """Locates the difference of an unequal port on the first batch that shows it: op by op, then in the optimized
    graph."""
    pairs = [(batch, our) for batch, our in zip(batches, ours, strict=True) if not isinstance(batch.outputs, str)]
    wrong = [name for name, part in ids.items() if not part.passed]
    pairs.sort(key=lambda pair: not _shows(ported, *pair, wrong))  # batches that show it first
    said: list[str] = []
    for batch, _ in pairs[:_LOOKED_AT]:
        seen = first_difference(ported, oracle, batch.inputs)
        if seen.found:
            return [seen.said]
        said = said or [seen.said]
    for batch, our in pairs[:_LOOKED_AT]:
        if _shows(ported, batch, our, wrong) and (found := first_served_difference(ported, oracle, batch.inputs)):
            return [found]
    return said


def _shows(ported: PortedTower, batch: Recorded, ours: Any, wrong: Sequence[str]) -> bool:
    """Whether a batch shows that the port is not equal."""
    if isinstance(ours, str) or isinstance(batch.outputs, str):
        return True
    if any(name in ours and difference(ours[name], theirs, {}) for name, theirs in batch.outputs.items()):
        return True
    inside = ported.tower().preprocess(dict(batch.inputs)) if wrong else {}
    return any(
        name in batch.ids and difference(to_numpy(inside[name]), batch.ids[name], {})
        for name in wrong
        if name in inside
    )


def verify_with_reference(ported: PortedTower, arrays: Arrays) -> ParityReport:
    """Compares the port with recorded inputs and outputs: arrays named `<signature>|in|<input>` and
    `<signature>|out|<output>`, or the output of `--record`."""
    index = _answering(ported)
    if is_recorded(arrays):
        return _verify_recorded(ported, batches_of(arrays, Path("the reference")).get(ported.entry, []), index)
    names = list(ported.entry_outputs) if index else list(ported.tf_graph.outputs)
    found = of_reference(arrays, ported.entry, [spec.name for spec in ported.tf_graph.inputs], names)
    if not found:
        recorded = ", ".join(sorted({name.partition("|")[0] for name in arrays}))
        raise PortingError(f"nothing is recorded for {ported.entry!r}; the reference has {recorded}")
    inputs = found[0].inputs
    return _report(ported, [inputs], _answers(ported, ported.tower(), [inputs]), [found[0].outputs], "recorded outputs")


def _verify_recorded(ported: PortedTower, batches: Sequence[Recorded], index: Retrieval | None) -> ParityReport:
    """Compares the port with batches recorded on a machine with TensorFlow."""
    if not batches:
        raise PortingError(f"nothing is recorded for {ported.entry!r} in the reference")
    known = {} if index is None else {INDEX_SCORES: index.scores, INDEX_IDS: index.ids}
    theirs = [
        batch.outputs
        if isinstance(batch.outputs, str)
        else {known.get(name) or name: a for name, a in batch.outputs.items()}
        for batch in batches
    ]
    kinds = [batch.kind for batch in batches]
    asked = [batch.inputs for batch in batches]
    report = _report(ported, asked, _answers(ported, ported.tower(), asked), theirs, "recorded outputs", kinds)
    _check_ids(report, ported, [(batch.inputs, batch.ids) for batch in batches if batch.ids])
    report.recorded = list(batches)
    return report


def not_compared(why_not: str, *, unanswered: bool = False) -> ParityReport:
    """The report without a comparison: there is no TensorFlow and no recording, or it was not requested.

    `unanswered`: TensorFlow itself cannot run the SavedModel, so the port is without evidence.
    """
    return ParityReport("nothing", why_not, unanswered)


def _report(ported: PortedTower, asked: Sequence[Arrays], ours: Sequence[Any], theirs: Sequence[Any], compared_with: str,
            kinds: Sequence[str] = ()) -> ParityReport:  # fmt: skip
    index = _answering(ported)
    exact = _answers(ported, reference(ported), asked)
    if index is not None:  # the split has no other outputs
        theirs = [t if isinstance(t, str) else {name: t[name] for name in _both(index)} for t in theirs]
    known = precisions(ported.tf_graph, ported.model.functions)
    if index is not None:  # the index computes its outputs from the embedding
        known = {name: precision for name in _both(index) for precision in known.values()}
    return compare(ours, theirs, exact, compared_with=compared_with, precisions=known, kinds=kinds)


def _answers(ported: PortedTower, tower: Tower, asked: Sequence[Arrays]) -> list[Any]:
    """The answers of `tower`, the port or its float64 twin; with an index, those of the index for its embedding."""
    index = _answering(ported)
    stored = None if index is None else index.stored()
    ranking = None if index is None or stored is None else Ranking(stored, index.scores, index.ids)
    return [answer(tower, batch, ranking) for batch in asked]


def _both(index: Retrieval) -> list[str]:
    return [name for name in (index.scores, index.ids) if name]


def _named(arrays: Arrays | str, names: Sequence[str]) -> Any:
    """TensorFlow's results by our names: a restored function's results are numbered. The message of a refusal is
    unchanged."""
    if isinstance(arrays, str):
        return arrays
    if set(arrays) == set(names):
        return dict(arrays)
    return {name: arrays[str(i)] for i, name in enumerate(names)}
