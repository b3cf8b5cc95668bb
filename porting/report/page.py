"""report.html: a self-contained page that shows what was ported and the measured parity with TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from porting.parity.report import ParityReport, describe
from porting.report.figures import error_distribution, error_growth
from porting.report.measurements import TOP, Errors, Measurements, agreement
from torch_towers.extras import need
from torch_towers.graph.graph import Graph
from torch_towers.program.listing import call_of, shapes_of, shown_sizes
from torch_towers.tower import Tower

TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True, slots=True)
class Reported:
    """One tower with its report. `source` names the SavedModel and its entry."""

    tower: Tower
    parity: ParityReport
    measured: Measurements | None
    source: str
    tensorflow: str = ""


def report(name: str, towers: Mapping[str, Reported], similarity: str) -> str:
    """The page as text. Errors: `TorchTowersError` if the packages that it needs are not installed."""
    jinja: Any = need("jinja2", "report")
    page = jinja.Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text("utf-8"))
    verdict, kind = _verdict([reported.parity for reported in towers.values()])
    share, queries = _agreement(towers)
    return page.render(
        name=name, similarity=similarity, verdict=verdict, verdict_class=kind, top=TOP, agreement=share, queries=queries,
        towers=[_section(side, reported) for side, reported in towers.items()],
    )  # fmt: skip


def _verdict(reports: Sequence[ParityReport]) -> tuple[str, str]:
    if not all(found.passed for found in reports):
        return "NOT equal to TensorFlow: kept for inspection (port --keep), do not use it", "unequal"
    if not all(found.enough for found in reports):
        return "Not enough evidence that it is equal to TensorFlow", "unsure"
    if any(found.compared_with == "nothing" for found in reports):
        return "Not compared with TensorFlow", "unsure"
    return f"Equal to {reports[0].compared_with}", "equal"


def _agreement(towers: Mapping[str, Reported]) -> tuple[float | None, int]:
    """The agreement of sampled queries and candidates; for a single tower, of its rows among themselves."""
    found = [reported.measured.embeddings for reported in towers.values() if reported.measured is not None]
    sides = [embeddings for embeddings in found if embeddings is not None]
    if not sides or sides[0][0].shape[1] != sides[-1][0].shape[1]:
        return None, 0
    return agreement(sides[0], sides[-1]), len(sides[0][0])


def _section(side: str, reported: Reported) -> dict[str, Any]:
    tower, parity, measured = reported.tower, reported.parity, reported.measured
    compared = parity.compared_with if parity.compared_with != "nothing" else f"nothing: {parity.why_not}"
    checks = [
        {"name": part.name, "passed": part.passed, "said": describe(part)}
        for part in (*parity.outputs.values(), *parity.ids.values())
    ]
    errors: Sequence[Errors] = () if measured is None else measured.errors
    return {
        "name": side,
        "source": reported.source,
        "tensorflow": reported.tensorflow,
        "compared_with": compared,
        "inputs": [{"name": s.name, "dtype": s.dtype, "shape": shown_sizes(s.shape)} for s in tower.inputs],
        "rows": [] if measured is None else [(_KINDS.get(kind, kind), n) for kind, n in measured.rows.items()],
        "checks": checks,
        "failures": parity.failures,
        "distributions": [{"output": e.output, "svg": error_distribution(e)} for e in errors if e.port.size],
        "steps": _steps(tower.encoder.graph, shapes_of(tower).get("encoder", {})),
        "growth": error_growth(measured.growth) if measured is not None and measured.growth else "",
    }


_KINDS = {"domain": "typical for the tower", "edge": "at the edges"}


def _steps(graph: Graph, shapes: Mapping[str, str]) -> list[dict[str, Any]]:
    """The encoder from top to bottom: each layer, and the number and kinds of ops between layers."""
    steps: list[dict[str, Any]] = []
    between: list[str] = []

    def close() -> None:
        if between:
            kinds = dict.fromkeys(between)
            shown = ", ".join(list(kinds)[:8]) + (", ..." if len(kinds) > 8 else "")
            steps.append(
                {"layer": False, "name": f"{len(between)} op{'s' * (len(between) > 1)}", "what": shown, "shape": ""}
            )
            between.clear()

    for node in graph.nodes:
        if node.op == "module":
            close()
            what = call_of(node, graph).rpartition("(")[0]
            steps.append({"layer": True, "name": node.name, "what": what, "shape": shapes.get(node.name, "")})
        elif node.op not in ("parameter", "constant"):
            between.append(node.op)
    close()
    return steps
