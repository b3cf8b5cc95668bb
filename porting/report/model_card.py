"""Writes a checkpoint with its evidence: parity.json, MODEL.md, report.html, and the compared samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from porting.parity.reference import reference
from porting.parity.report import ParityReport
from porting.report.measurements import measure
from porting.report.page import Reported, report
from porting.samples import samples as sampling
from porting.tower import PortedTower
from torch_towers.checkpoint.checkpoint import Side, save_checkpoint
from torch_towers.errors import TorchTowersError
from torch_towers.graph.similarity import Similarity
from torch_towers.parity.answers import Ranking
from torch_towers.parity.recorded import kept, pack
from torch_towers.parity.verify import INDEX_IDS, INDEX_SCORES
from torch_towers.program.listing import listing


def save(
    output: Path,
    towers: Mapping[str, PortedTower],
    reports: Mapping[str, ParityReport],
    similarity: str,
    *,
    samples: bool = True,
) -> list[str]:
    """Writes the checkpoint atomically; returns notes for the user.

    `samples`: whether to include the compared batches and TensorFlow's answers.
    """
    sides = {side: Side(ported.spec, ported.store, ported.frozen) for side, ported in towers.items()}
    index = next((ported.retrieval for ported in towers.values() if ported.retrieval is not None), None)
    parity = {side: report.as_json() for side, report in reports.items()}
    recorded = {side: kept(report.recorded) for side, report in reports.items() if report.recorded}
    page, said = _page(output.name, towers, reports, similarity)
    save_checkpoint(
        output,
        query=sides.get("query"),
        candidate=sides.get("candidate"),
        candidates=None if index is None else index.stored(),
        similarity=cast(Similarity, similarity),
        source={side: _source(ported) for side, ported in towers.items()},
        samples=pack(recorded) if samples and recorded else None,
        extra_files={
            **page,
            "parity.json": (json.dumps(parity, indent=2, allow_nan=False) + "\n").encode(),
            "MODEL.md": card(output.name, towers, reports, similarity).encode(),
        },
    )
    return said


def _page(
    name: str, towers: Mapping[str, PortedTower], reports: Mapping[str, ParityReport], similarity: str
) -> tuple[dict[str, bytes], list[str]]:
    """report.html; without the packages that it needs, nothing, and a sentence that says so."""
    try:
        shown = {side: _reported(ported, reports[side]) for side, ported in towers.items()}
        return {"report.html": report(name, shown, similarity).encode()}, []
    except TorchTowersError as error:
        return {}, [f"report.html was not written: {error}"]


def _reported(ported: PortedTower, parity: ParityReport) -> Reported:
    index = ported.retrieval.stored() if ported.retrieval is not None else None
    ranking = None if index is None else Ranking(index, INDEX_SCORES, INDEX_IDS)
    answered = {name for b in parity.recorded if not isinstance(b.outputs, str) for name in b.outputs}
    ranking = ranking if answered & {INDEX_SCORES, INDEX_IDS} else None
    tower = ported.tower()
    shown = parity.recorded[:_SHOWN]
    measured = measure(tower, reference(ported), shown, ranking) if shown else None
    return Reported(
        tower, parity, measured, f"{ported.model.path.name}, {ported.entry}", ported.model.tensorflow_version or ""
    )


_SHOWN = 8  # batches whose errors are plotted


def _source(ported: PortedTower) -> dict[str, Any]:
    return {
        "saved_model": ported.model.path.name,
        "entry": ported.entry,
        **({"cut": list(ported.cuts)} if ported.cuts else {}),
        "tensorflow_version": ported.model.tensorflow_version,
        "served": ported.served._asdict(),
    }


def card(name: str, towers: Mapping[str, PortedTower], reports: Mapping[str, ParityReport], similarity: str) -> str:
    """MODEL.md: the towers as readable listings, an example of their inputs, and the measured parity."""
    parts = [f"# {name}\n\nTwo-tower model, ported from TensorFlow. Similarity: {similarity}."]
    if unequal := [side for side, report in reports.items() if not report.passed]:
        parts.append(
            f"**The {' and the '.join(unequal)} tower is NOT equal to TensorFlow.** "
            "Kept for inspection (`port --keep`): do not use it."
        )
    for side, ported in towers.items():
        parts.append(_section(name, side, ported, reports[side]))
    return "\n\n".join(parts) + "\n"


def _section(name: str, side: str, ported: PortedTower, report: ParityReport) -> str:
    parity = "\n".join(line.strip() for line in report.lines())
    return "\n".join(
        [
            f"## {side}",
            "",
            f"From `{ported.model.path.name}`, `{ported.entry}` (TensorFlow {ported.model.tensorflow_version or 'unknown'}).",
            *_how_served(ported),
            "",
            *(f"- {note}" for note in (*ported.cuts, *ported.notes)),
            *([""] if ported.cuts or ported.notes else []),
            "```python",
            f'towers = torch_towers.load("{name}")',
            f"towers.encode_{side}({_example(ported)})",
            "```",
            "",
            "```",
            listing(ported.tower()),
            "```",
            "",
            "Parity:",
            "",
            "```",
            parity,
            "```",
        ]
    )


def _how_served(ported: PortedTower) -> list[str]:
    """How TensorFlow runs the graph, if it matters."""
    lines: list[str] = []
    if ported.no_nan:
        behind = "one relu gives" if ported.no_nan == 1 else f"{ported.no_nan} relus give"
        lines.append(
            f"As in TensorFlow with oneDNN, {behind} 0 for NaN (an average of nothing); `port --onednn off` keeps the NaN."
        )
    if not ported.served.optimizer:
        lines.append("Computed as the graph is written, not as TensorFlow's graph optimizer rewrites it.")
    return ["", *lines] if lines else []


def _example(ported: PortedTower) -> str:
    """One row of inputs, generated from the tower's graph; `...` for one too large to be made up."""
    made = sampling.batches(ported.tf_graph, ported.model)
    shown = (_shown(made[0].inputs[spec.name]) if made else "..." for spec in ported.spec.inputs)
    return (
        "{" + ", ".join(f'"{spec.name}": {value}' for spec, value in zip(ported.spec.inputs, shown, strict=True)) + "}"
    )


_LONG = 40  # maximum numbers, or characters of a text, to write out


def _shown(array: np.ndarray[Any, Any]) -> str:
    """A feature as Python code: written out if it is short, else an array of its shape."""
    if array.size > _LONG and array.dtype != object:
        return f'numpy.zeros({tuple(array.shape)}, "{array.dtype.name}")'
    return _literal(array.tolist())


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return repr(value) if len(value) <= _LONG else 'open("a file", "rb").read()'
        return repr(text if len(text) <= 5 * _LONG else text[: 5 * _LONG] + "...")
    return f"{value:g}" if isinstance(value, float) else repr(value)
