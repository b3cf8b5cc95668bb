"""The source of a port: written, run, and compared with it; and a whole folder of sources under ruff and a type checker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from porting.samples import samples
from porting.tower import PortedTower
from torch_towers.checkpoint.checkpoint import Side, save_checkpoint
from torch_towers.parity.answers import answer
from torch_towers.parity.recorded import Recorded, pack
from torch_towers.source.check import compared, imported
from torch_towers.source.module import source_of

ROOT = Path(__file__).parents[2]


def assert_source(ported: PortedTower, folder: Path, name: str) -> Path:
    """The file that the port's source is in, after it gave what the port gives on inputs made from its graph."""
    tower = ported.tower()
    made = samples.batches(ported.tf_graph, ported.model)[:4]
    recorded = [Recorded(batch.inputs, answer(tower, batch.inputs), {}, batch.kind) for batch in made]
    checkpoint = folder / "checkpoints" / name
    checkpoint.parent.mkdir(exist_ok=True)
    save_checkpoint(checkpoint, query=Side(ported.spec, ported.store, ported.frozen), samples=pack({"query": recorded}))
    file = folder / "sources" / f"{re.sub(r'[^a-z0-9_]+', '_', name.lower())}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(source_of(checkpoint).text)
    found = compared(imported(file), checkpoint)
    assert all(item.passed for item in found), found
    answered = [batch for batch in recorded if not isinstance(batch.outputs, str)]
    assert found or not answered or not tower.encoder.graph.outputs, "nothing was compared"
    return file


def assert_clean(folder: Path) -> None:
    """No file in the folder has anything that ruff or pyright says something about."""
    files = sorted(folder.glob("*.py"))
    assert files
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--isolated"], ["format", "--isolated", "--check", "--line-length", "120"]):
        done = subprocess.run([*ruff, *command, "."], capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stdout[-3000:]
    (folder / "pyrightconfig.json").write_text(json.dumps({"include": ["*.py"], "extraPaths": [str(ROOT)]}))
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(folder)]
    done = subprocess.run(pyright, capture_output=True, text=True, cwd=folder)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files)
    assert not report["generalDiagnostics"], [item["message"] for item in report["generalDiagnostics"]][:5]
