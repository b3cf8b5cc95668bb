"""`make corpus`: ports every SavedModel of the catalogue and prints how equal each is to TensorFlow's recorded outputs,
and whether its source, as `torch-towers source` writes it, is equal to the port."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from porting.parity.comparison import verify_with_reference, verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.parity.process import tensorflow_installed
from porting.parity.report import OutputParity, ParityReport
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.corpus.catalog import FOLDER, RECORDED_LATER, REFUSE, SIDE_EFFECTS, Recorded, catalog, entry_of
from tests.corpus.sources import source_difference
from torch_towers.errors import TorchTowersError

COLUMNS = "{:<24} {:<26} {:>6} {:>7} {:>6} {:<8} {:>13} {:>7} {:>9} {:<6} {:>8}  {}"


@dataclass
class Row:
    """The result of one entry of one SavedModel."""

    name: str
    producer: str
    ops: int = 0
    left: int = 0  # our ops outside of layers
    in_layers: float = 0.0  # of its float parameters
    ported: bool = False
    refused: bool = False
    reports: Sequence[ParityReport] = ()
    source: str = ""  # how it differs; "" if it is equal
    seconds: float = 0.0
    message: str = ""

    @property
    def good(self) -> bool:
        return self.refused or (self.ported and all(report.passed for report in self.reports))

    @property
    def has_source(self) -> bool:
        return self.ported and not self.source

    def line(self) -> str:
        outputs = [output for report in self.reports for output in report.outputs.values()]
        exact = [output for output in outputs if not output.dtype.startswith("float")]
        exact += [part for report in self.reports for part in report.ids.values()]
        floats = [output for output in outputs if output.dtype.startswith("float")]
        verdict = "refused" if self.refused else "equal" if self.good else "NOT" if self.ported else "no"
        return COLUMNS.format(
            self.name[:24], self.producer[:26], self.ops, self.left, f"{self.in_layers:.1%}" if self.ported else "-", verdict, _ids(exact),
            f"{max((_ratio(output) for output in floats), default=0.0):.2f}" if floats else "-",
            f"{max((output.worst for output in floats), default=0.0):.1e}" if floats else "-",
            "-" if not self.ported else "no" if self.source else "equal", f"{self.seconds:.1f}",
            "; ".join(filter(None, (self.message, self.source))),
        )  # fmt: skip


def _ids(outputs: Sequence[OutputParity]) -> str:
    return f"{sum(o.equal + o.ties for o in outputs)}/{sum(o.values for o in outputs)}" if outputs else "-"


def _ratio(output: OutputParity) -> float:
    return output.ratio if output.error > output.ulp else min(output.ratio, 1.0)


def port_entry(recorded: Recorded, signature: str, oracle: Oracle | None = None) -> Row:
    """Ports one entry and compares it with what was recorded, and with TensorFlow itself where `oracle` is given."""
    row = Row(f"{recorded.name}", recorded.producer)
    start = time.monotonic()
    ported: PortedTower | None = None
    try:
        ported = port_tower(read(recorded.path), entry_of(signature) or None)
        row.ported, row.ops = True, len(ported.tf_graph.nodes)
        row.left, row.in_layers = ported.remaining.total(), ported.layer_share
        later = (recorded.name, signature) in RECORDED_LATER or not recorded.signatures  # or nothing is recorded
        reports = [] if later else [verify_with_reference(ported, recorded.arrays())]
        if oracle is not None:
            reports.append(verify_with_tensorflow(ported, oracle))
        row.reports = reports
        row.message = "; ".join(reason for report in reports for reason in _reasons(report))
    except TorchTowersError as error:
        row.message = str(error).splitlines()[0]
    row.seconds = time.monotonic() - start
    if ported is not None:
        with tempfile.TemporaryDirectory() as folder:
            row.source = source_difference(ported, Path(folder), row.name)
    return row


def _reasons(report: ParityReport) -> list[str]:
    return [f"{o.name}: {o.reason}" for o in report.outputs.values() if not o.passed] + report.failures


def rows(entries: Sequence[Recorded], oracle: Oracle | None = None) -> list[Row]:
    """A row for every recorded entry, and one for a SavedModel that must be refused."""
    found: list[Row] = []
    for recorded in entries:
        for signature in recorded.signatures or ("",):
            row = port_entry(recorded, signature, oracle)
            row.name = recorded.name if len(recorded.signatures) < 2 else f"{recorded.name} {entry_of(signature)}"
            row.refused = (recorded.group == REFUSE or (recorded.name, signature) in SIDE_EFFECTS) and not row.ported
            found.append(row)
            print(row.line(), flush=True)
    return found


def main(arguments: Sequence[str]) -> int:
    """Prints the table; 0 if every row is equal, as a port and as source, or rightly refused. `arguments` select SavedModels
    by parts of their names."""
    entries = [item for item in catalog() if not arguments or any(part in item.name for part in arguments)]
    if not entries:
        print(f"no SavedModels at {FOLDER}: set TORCH_TOWERS_CORPUS to their folder")
        return 2
    print(
        COLUMNS.format(
            "name", "producer", "ops", "raw ops", "in", "ported", "ids equal", "RMS", "max", "source", "seconds", ""
        )
    )
    print(COLUMNS.format("", "(TensorFlow)", "", "left", "layers", "", "", "ratio", "error", "", "", ""))
    if tensorflow_installed():
        with Oracle() as oracle:
            found = rows(entries, oracle)
    else:
        found = rows(entries)
    good = sum(row.good for row in found)
    print(f"{good} of {len(found)} entries of {len(entries)} SavedModels: ported and equal, or refused as they must be")
    ported, sources = sum(row.ported for row in found), sum(row.has_source for row in found)
    print(f"{sources} of {ported} ported entries: their source is equal")
    return 0 if good == len(found) and sources == ported else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
