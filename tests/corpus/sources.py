"""The generated source of a port is run, compiled and exported, and compared with it; all pass ruff and a type checker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from porting.samples import samples
from porting.tower import PortedTower
from torch_towers.checkpoint.checkpoint import Side, save_checkpoint
from torch_towers.errors import TorchTowersError
from torch_towers.parity.answers import answer
from torch_towers.parity.recorded import Recorded, pack
from torch_towers.source.check import Batch, Compared, answered, compare, compared, imported, require, runner
from torch_towers.source.exported import free_sizes
from torch_towers.source.module import source_of
from torch_towers.tower import Tower

ROOT = Path(__file__).parents[2]


def assert_source(ported: PortedTower, folder: Path, name: str) -> Path:
    """The file that the port's source is in, after it gave what the port gives on inputs made from its graph: as it is,
    compiled, and exported with a free batch."""
    checkpoint, recorded = _checkpoint(ported, folder, name)
    file = _written(checkpoint, folder, name)
    module, tower = imported(file), ported.tower()
    found = compared(module, checkpoint, edges=True)
    assert all(item.passed for item in found), found
    batches = sorted(answered(tower, recorded), key=lambda batch: -max(map(_rows, batch[0].values()), default=0))
    assert found or not batches or not tower.encoder.graph.outputs, "nothing was compared"
    if batches and tower.encoder.graph.outputs:
        _assert_captured(module.load(checkpoint).query, tower, batches)
    return file


def source_difference(ported: PortedTower, folder: Path, name: str) -> str:
    """How the port's source differs from the port on inputs made from its graph, or why there is none; "" if they are equal."""
    checkpoint, _ = _checkpoint(ported, folder, name)
    try:
        require(compared(imported(_written(checkpoint, folder, name)), checkpoint, edges=True), "the source")
    except TorchTowersError as error:
        return str(error)
    except Exception as error:  # a generated file may raise anything
        return f"the source does not run: {type(error).__name__}: {error}"
    return ""


def _checkpoint(ported: PortedTower, folder: Path, name: str) -> tuple[Path, list[Recorded]]:
    """The checkpoint of a port with its answers to inputs that were made from its graph."""
    tower = ported.tower()
    made = samples.batches(ported.tf_graph, ported.model)[:4]
    recorded = [Recorded(batch.inputs, answer(tower, batch.inputs), {}, batch.kind) for batch in made]
    checkpoint = folder / "checkpoints" / name
    checkpoint.parent.mkdir(exist_ok=True)
    save_checkpoint(checkpoint, query=Side(ported.spec, ported.store, ported.frozen), samples=pack({"query": recorded}))
    return checkpoint, recorded


def _written(checkpoint: Path, folder: Path, name: str) -> Path:
    """The file with the source of a checkpoint."""
    file = folder / "sources" / f"{re.sub(r'[^a-z0-9_]+', '_', name.lower())}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(source_of(checkpoint).text)
    return file


def _rows(value: Any) -> int:
    return len(value) if isinstance(value, Tensor) and value.ndim else 0


def _assert_captured(written: torch.nn.Module, tower: Tower, batches: list[Batch]) -> None:
    """Where the port's encoder exports with a free batch and free lengths, or compiles as one graph, so does its source,
    and gives the same."""
    for capture in (_exported, _compiled):
        try:
            found = capture(written, tower, batches, by_name=False)
        except Exception:  # torch may raise anything: then it must not take the encoder either
            with pytest.raises(Exception):  # noqa: B017
                capture(tower.encoder, tower, batches, by_name=True)
            continue
        assert all(item.passed for item in found), found


def _exported(module: torch.nn.Module, tower: Tower, batches: list[Batch], *, by_name: bool) -> list[Compared]:
    example = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batches[0][0].items()}
    free = free_sizes(tower, example)
    args = ((), example, free) if by_name else (tuple(example.values()), {}, tuple(free.values()))
    with torch.no_grad():
        program = torch.export.export(module, args[0], kwargs=args[1], dynamic_shapes=args[2], strict=False).module()
    more = [batch for batch in batches if max(map(_rows, batch[0].values()), default=0) != 1]  # torch may fix a 1
    return _compared(program, tower, more, by_name=by_name)


def _compiled(module: torch.nn.Module, tower: Tower, batches: list[Batch], *, by_name: bool) -> list[Compared]:
    torch._dynamo.reset()
    call = torch.compile(module, fullgraph=True, backend="eager", dynamic=True)
    return _compared(call, tower, batches, by_name=by_name)


def _compared(call: Any, tower: Tower, batches: list[Batch], *, by_name: bool) -> list[Compared]:
    def run(given: dict[str, Any]) -> Any:
        with torch.no_grad():
            return call(**given)

    return compare("query", run if by_name else runner(call, list(tower.encoder.graph.outputs)), batches)


def assert_clean(folder: Path) -> None:
    """ruff and pyright report nothing for any file in the folder."""
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
