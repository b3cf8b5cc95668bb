"""Time to the first embedding: a fresh process part by part, the import, `--help`, and large checkpoints.

`python -m benchmarks.startup`
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import data
from benchmarks.run import QUIET, port
from benchmarks.towers import saved_model

_IMPORT = """
import time
import torch
start = time.perf_counter()
from torch_towers import layers, load, ops
print(time.perf_counter() - start)
"""
_ROWS, _DIM, _WORDS = 2_000_000, 64, 1_000_000


PARTS = ("import", "load", "call", "whole")


def first_embedding(folder: Path, tower: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each part up to the first embedding in a fresh process, and in total; for torch its import."""
    source = saved_model(folder, tower)
    checkpoint = port(source, folder / f"{tower.replace(' ', '_')}.port")
    ways = {"torch": [], "torch_towers": [str(checkpoint), tower], "tensorflow": [str(source), tower]}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in ways}
    for turn in range(rounds + 1):
        for kind, arguments in ways.items():
            parts = json.loads(_output(["-m", "benchmarks.first", kind, *arguments]))
            if turn:  # the first round warms the file cache and the byte code
                found[kind].append({**parts, "whole": sum(parts.values())})
    return {kind: {part: median(one[part] for one in many) for part in many[0]} for kind, many in found.items()}


def ratios(parts: dict[str, dict[str, float]]) -> dict[str, float]:
    """TensorFlow's time over torch_towers': with imports, from `load` on, and over `import torch` alone."""
    ours, theirs = parts["torch_towers"], parts["tensorflow"]
    return {
        "whole": theirs["whole"] / ours["whole"],
        "from load on": (theirs["load"] + theirs["call"]) / (ours["load"] + ours["call"]),
        "torch alone": theirs["whole"] / parts["torch"]["whole"],
    }


def row(tower: str, parts: dict[str, dict[str, float]]) -> str:
    """One line of the table."""
    times = [
        parts["torch"]["import"],
        *(parts[kind][part] for kind in ("torch_towers", "tensorflow") for part in PARTS),
    ]
    shown = [*(f"{seconds * 1e3:.0f}" for seconds in times), *(f"**{one:.1f}**" for one in ratios(parts).values())]
    return f"| {' | '.join([tower, *shown])} |"


def _output(arguments: Sequence[str]) -> str:
    """The output of Python, run quietly."""
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=data.ROOT,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    return run.stdout


def import_seconds(rounds: int) -> float:
    """The time that importing the runtime, with every op and layer, adds to `import torch`."""
    return median([float(_output(["-c", _IMPORT])) for _ in range(rounds + 1)][1:])


def help_seconds(rounds: int) -> float:
    """The time of `torch-towers --help`, including process start and exit."""
    found: list[float] = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        _output(["-m", "torch_towers.cli", "--help"])
        found.append(time.perf_counter() - start)
    return median(found[1:])


def large_table(folder: Path) -> Path:
    """A tower with a table of 512 MB."""
    import torch

    from torch_towers.graph.graph import ModuleSpec

    ported = _id_tower(folder)
    graph = ported.spec.encoder
    ((name, spec),) = graph.modules.items()
    grown = replace(graph, modules={name: ModuleSpec(spec.type, {**spec.args, "num_embeddings": _ROWS})})
    store = {**ported.store, f"{name}.weight": torch.randn(_ROWS, _DIM)}
    return _saved(folder / "large.port", replace(ported, spec=replace(ported.spec, encoder=grown), store=store))


def large_vocabulary(folder: Path) -> Path:
    """A tower with a vocabulary of 1,000,000 words."""
    import numpy as np

    ported = _id_tower(folder)
    (name,) = (name for name, value in ported.store.items() if isinstance(value, np.ndarray))
    words = np.array([f"word-{i * 7919 % _WORDS}".encode() for i in range(_WORDS)], object)
    return _saved(folder / "vocabulary.port", replace(ported, store={**ported.store, name: words}))


def _id_tower(folder: Path) -> Any:
    from porting.saved_model import read
    from porting.tower import port_tower

    return port_tower(read(saved_model(folder, "tfrs ids")))


def _saved(target: Path, ported: Any) -> Path:
    from torch_towers import Side, save_checkpoint

    save_checkpoint(target, query=Side(ported.spec, ported.store, ported.frozen))
    return target


def load_seconds(path: Path, rounds: int) -> float:
    """Seconds of a warm `load`."""
    import torch_towers

    found: list[float] = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        torch_towers.load(path)
        found.append(time.perf_counter() - start)
    return median(found[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Seconds until the first embedding.")
    parser.add_argument("--towers", nargs="*", default=list(data.INPUTS), help="some of: " + ", ".join(data.INPUTS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "torch_towers_benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.towers", str(options.folder)]
    subprocess.run(command, cwd=data.ROOT, env={**os.environ, **QUIET}, check=True)
    print("Milliseconds to the first embedding in a fresh process, and TensorFlow's time over ours.\n")
    print("| tower | import torch alone | torch_towers: import | load | call | whole", end="")
    print(" | TensorFlow: import | load | call | whole | whole | from load on | whole over torch's import |")
    print("| --- |" + " ---: |" * 12)
    first: dict[str, Any] = {}
    for tower in options.towers:
        parts = first_embedding(options.folder, tower, options.rounds)
        print(row(tower, parts), flush=True)
        first[tower] = {"seconds": parts, "ratios": ratios(parts)}
    report: dict[str, Any] = {
        "first embedding": first,
        "import torch_towers after torch, ms": import_seconds(options.rounds) * 1e3,
        "torch-towers --help, ms": help_seconds(options.rounds) * 1e3,
        "load a table of 512 MB, warm, ms": load_seconds(large_table(options.folder), options.rounds) * 1e3,
        "load 1,000,000 words, warm, ms": load_seconds(large_vocabulary(options.folder), options.rounds) * 1e3,
    }
    print(json.dumps({name: value for name, value in report.items() if name != "first embedding"}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
