"""How long until the first embedding: a fresh process, the import, and a checkpoint of 500 MB. `python -m benchmarks.startup`."""

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
from benchmarks.run import QUIET, Engine, port
from benchmarks.towers import saved_model

_IMPORT = """
import time
import torch
start = time.perf_counter()
from torch_towers import layers, load, ops
print(time.perf_counter() - start)
"""
_ROWS, _DIM = 2_000_000, 64


def first_embedding(folder: Path, tower: str, rounds: int) -> dict[str, float]:
    """Seconds from the start of a process to its first embedding, imports included."""
    source = saved_model(folder, tower)
    paths = {"torch_towers": port(source, folder / "startup.port"), "tensorflow": source}
    found: dict[str, list[float]] = {kind: [] for kind in paths}
    for turn in range(rounds + 1):
        for kind, path in paths.items():
            start = time.perf_counter()
            engine = Engine(kind, path, tower)  # its first line comes with its first embedding
            seconds = time.perf_counter() - start
            engine.close()
            if turn:  # the first round fills the file cache and writes the byte code
                found[kind].append(seconds)
    return {kind: median(seconds) for kind, seconds in found.items()}


def import_seconds(rounds: int) -> float:
    """What importing the runtime, with every op and layer, adds to `import torch`."""
    command = [sys.executable, "-c", _IMPORT]
    runs = [
        subprocess.run(command, cwd=data.ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True, check=True)
        for _ in range(rounds + 1)
    ]
    return median(float(run.stdout) for run in runs[1:])


def large_checkpoint(folder: Path) -> Path:
    """A tower with a table of 512 MB."""
    import torch

    from porting.saved_model import read
    from porting.tower import port_tower
    from torch_towers import Side, save_checkpoint
    from torch_towers.graph import Graph, ModuleSpec

    target = folder / "large.port"
    if target.exists():
        return target
    ported = port_tower(read(saved_model(folder, "tfrs ids")))
    graph: Graph = ported.spec.encoder
    ((name, spec),) = graph.modules.items()
    grown = replace(graph, modules={name: ModuleSpec(spec.type, {**spec.args, "num_embeddings": _ROWS})})
    store = {**ported.store, f"{name}.weight": torch.randn(_ROWS, _DIM)}
    side = Side(replace(ported.spec, encoder=grown), store, ported.frozen)
    save_checkpoint(target, query=side, candidate=None, similarity="dot", source={}, extra_files={})
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
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "torch_towers_benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.towers", str(options.folder)]
    subprocess.run(command, cwd=data.ROOT, env={**os.environ, **QUIET}, check=True)
    first = first_embedding(options.folder, "features", options.rounds)
    large = large_checkpoint(options.folder)
    report: dict[str, Any] = {
        "first embedding in a fresh process, s": first,
        "TensorFlow's over torch_towers'": first["tensorflow"] / first["torch_towers"],
        "import torch_towers after torch, ms": import_seconds(options.rounds) * 1e3,
        "load a checkpoint of 512 MB, warm, ms": load_seconds(large, options.rounds) * 1e3,
    }
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
