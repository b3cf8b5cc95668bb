"""Writes a checkpoint with its two reports: parity.json for machines, MODEL.md for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from porting import samples
from porting.parity import ParityReport
from porting.tower import PortedTower
from torch_towers.checkpoint import Side, Similarity, save_checkpoint
from torch_towers.graph import TensorSpec
from torch_towers.listing import listing


def save(output: Path, towers: Mapping[str, PortedTower], reports: Mapping[str, ParityReport], similarity: str) -> None:
    """Puts the checkpoint in place, whole or not at all."""
    sides = {side: Side(ported.spec, ported.store, ported.frozen) for side, ported in towers.items()}
    index = next((ported.retrieval for ported in towers.values() if ported.retrieval is not None), None)
    parity = {side: report.as_json() for side, report in reports.items()}
    save_checkpoint(
        output,
        query=sides.get("query"),
        candidate=sides.get("candidate"),
        candidates=None if index is None else index.stored(),
        similarity=cast(Similarity, similarity),
        source={side: _source(ported) for side, ported in towers.items()},
        extra_files={
            "parity.json": (json.dumps(parity, indent=2, allow_nan=False) + "\n").encode(),
            "MODEL.md": card(output.name, towers, reports, similarity).encode(),
        },
    )


def _source(ported: PortedTower) -> dict[str, Any]:
    return {
        "saved_model": ported.model.path.name,
        "entry": ported.entry,
        **({"cut": list(ported.cuts)} if ported.cuts else {}),
        "tensorflow_version": ported.model.tensorflow_version,
        "served": ported.served._asdict(),
    }


def card(name: str, towers: Mapping[str, PortedTower], reports: Mapping[str, ParityReport], similarity: str) -> str:
    """MODEL.md: the towers as readable listings, an example of their inputs, and how equal they were measured to be."""
    parts = [f"# {name}\n\nTwo-tower model, ported from TensorFlow. Similarity: {similarity}."]
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
    """Which of TensorFlow's ways to run the graph was taken, where it matters."""
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
    """One row of inputs, made from the tower's own graph."""
    batch = samples.batches(ported.tf_graph, ported.model)[0].inputs
    shown = [f'"{spec.name}": {_literal(batch[spec.name].tolist(), spec)}' for spec in ported.spec.inputs]
    return "{" + ", ".join(shown) + "}"


def _literal(value: Any, spec: TensorSpec) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_literal(item, spec) for item in value)}]"
    if isinstance(value, bytes):
        try:
            return repr(value.decode())
        except UnicodeDecodeError:
            return repr(value)
    return f"{value:g}" if isinstance(value, float) else repr(value)
