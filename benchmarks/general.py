"""Every tower that the tests build, compared with TensorFlow: `python -m benchmarks.general`, a table of cells, the
lowest, and JSON.

A cell is a tower, a number of rows and a call (the whole call, or `encode` in batches), from Python data to numpy. Both
engines run in separate processes that take turns. `--busy` keeps one core busy; `--cpus N` restricts both to N
processors. On a shared machine, `--cpus 1 --clock processor` compares the CPU time of the two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.engines import port_folder
from benchmarks.produced import HELD_OUT, Produced, written
from benchmarks.run import BATCHES, QUIET, TOO_LARGE, processor

LONGEST = 4.0
"""Seconds: sizes whose call would take longer, extrapolated from the previous size, are skipped."""


class RefusedError(Exception):
    """An engine cannot do what it was asked for."""


class Engine:
    """A worker process for all towers: `engine.ask(...)` returns its answer."""

    def __init__(self, kind: str, folder: Path, log: Path) -> None:
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engines", kind, str(folder)], cwd=data.ROOT, env={**os.environ, **QUIET},
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine ended with status {self._process.wait()}; it said: {self._log.name}")
        found = json.loads(line)
        if isinstance(found, str):
            raise RefusedError(found)
        return found

    def close(self) -> None:
        self._process.communicate()
        self._log.close()


def port(tower: Produced, folder: Path) -> str | None:
    """Ports a tower and draws its rows; returns the reason if it cannot be ported."""
    from benchmarks.rows import pool_of
    from porting.errors import PortingError
    from porting.saved_model import read
    from porting.tower import port_tower
    from torch_towers import Side, save_checkpoint
    from torch_towers.formats.npz import save_arrays

    try:
        ported = port_tower(read(Path(tower.folder), tags=tower.tags), tower.entry)
    except PortingError as error:
        return str(error)
    side = Side(ported.spec, ported.store, ported.frozen)
    target = port_folder(tower, folder)
    target.parent.mkdir(exist_ok=True)
    save_checkpoint(target, query=side, candidate=None, similarity="dot", source={}, extra_files={})
    if not tower.own:
        pool = pool_of(ported)
        flat = {f"{i}|{name}": np.asarray(array) for i, batch in enumerate(pool) for name, array in batch.items()}
        save_arrays(target.with_suffix(".npz"), flat)
    return None


def measure(
    engines: dict[str, Engine], tower: str, rows: int, ways: Sequence[str], options: Any
) -> dict[str, list[float]]:
    """Seconds of every call, by engine: "tensorflow", and each call of the port."""
    turns = [("tensorflow", "tensorflow", "call"), *((way, "torch_towers", way) for way in ways)]
    repeats: dict[str, int] = {}
    for name, engine, way in turns:  # warm-up
        once = min(engines[engine].ask(tower=tower, rows=rows, way=way, repeats=2, clock=options.clock)) or 1e-6
        repeats[name] = max(1, min(200, int(options.seconds / once)))
    found: dict[str, list[float]] = {name: [] for name in repeats}
    for turn in range(options.rounds):
        for name, engine, way in turns if turn % 2 == 0 else turns[::-1]:
            found[name] += engines[engine].ask(
                tower=tower, rows=rows, way=way, repeats=repeats[name], clock=options.clock
            )
    return found


def cells(tower: Produced, engines: dict[str, Engine], options: Any) -> Iterator[dict[str, Any]]:
    """The measurements of a tower, size by size."""
    ways = [way for way in engines["torch_towers"].ask(tower=tower.name) if way in options.ways]
    engines["tensorflow"].ask(tower=tower.name)
    last = 0.0
    for rows in options.batches:
        if last * 16 > LONGEST or rows > TOO_LARGE.get(tower.name, rows):
            break
        found = measure(engines, tower.name, rows, ways, options)
        theirs = found.pop("tensorflow")
        last = max(map(median, (theirs, *found.values()))) * (0.1 if rows < 1024 else 1)
        for way, ours in found.items():
            yield {
                "tower": tower.name, "family": tower.family, "rows": rows, "way": way, "ratio": median(theirs) / median(ours),
                "ms": median(ours) * 1e3, "tensorflow_ms": median(theirs) * 1e3,
                "p99": float(np.quantile(ours, 0.99)) / median(ours), "tensorflow_p99": float(np.quantile(theirs, 0.99)) / median(theirs),
            }  # fmt: skip


def mean(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return exp(sum(map(log, ratios)) / len(ratios)) if ratios else float("nan")


def summary(found: Sequence[dict[str, Any]]) -> list[str]:
    """The geometric means, the shares, the lowest cells, and the held-out towers beside their families."""
    lines = [
        "",
        "| | cells | geometric mean | below 1.0 | at 1.5 or more | p99 over the median, worst |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, some in [("all", list(found)), *((f"{rows:,} rows", [c for c in found if c["rows"] == rows]) for rows in BATCHES),
                       *((way, [c for c in found if c["way"] == way]) for way in ("call", "encode"))]:  # fmt: skip
        ratios = [cell["ratio"] for cell in some]
        if ratios:
            low, high = (sum(test) / len(ratios) for test in ([r < 1 for r in ratios], [r >= 1.5 for r in ratios]))
            worst = max(cell["p99"] for cell in some)
            lines.append(f"| {name} | {len(ratios)} | {mean(ratios):.2f} | {low:.0%} | {high:.0%} | {worst:.1f} |")
    lines += ["", "| family | geometric mean | held out of tuning | its mean |", "| --- | ---: | --- | ---: |"]
    for family in dict.fromkeys(cell["family"] for cell in found):
        some = [cell for cell in found if cell["family"] == family]
        out = [cell["ratio"] for cell in some if cell["tower"] in HELD_OUT]
        rest = [cell["ratio"] for cell in some if cell["tower"] not in HELD_OUT]
        names = ", ".join(sorted({cell["tower"] for cell in some if cell["tower"] in HELD_OUT}))
        lines.append(f"| {family} | {mean(rest):.2f} | {names} | {mean(out):.2f} |")
    lines += ["", "| lowest | rows | way | ratio | ms | TensorFlow, ms |", "| --- | ---: | --- | ---: | ---: | ---: |"]
    lowest: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in sorted(found, key=lambda cell: cell["ratio"]):
        lowest.setdefault((cell["tower"], cell["way"]), cell)
    for cell in list(lowest.values())[:10]:
        lines.append(
            f"| {cell['tower']} | {cell['rows']} | {cell['way']} | {cell['ratio']:.2f} | {cell['ms']:.3f} | {cell['tensorflow_ms']:.3f} |"
        )
    return lines


@contextlib.contextmanager
def busy(on: bool) -> Iterator[None]:
    """Keeps one core busy in another process."""
    if not on:
        yield
        return
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        burner.kill()
        burner.wait()


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Every tower that the tests build, compared with TensorFlow.")
    parser.add_argument("--towers", nargs="*", default=[""], help="parts of names: only these")
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--ways", nargs="*", default=["call", "encode"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.05, help="seconds per call and round")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "torch_towers_benchmarks")
    parser.add_argument("--busy", action="store_true", help="keep one core busy meanwhile")
    parser.add_argument("--cpus", type=int, help="restrict both engines to that many processors")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall",
                        help="processor: CPU time of all threads, which other processes affect least")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="reuse the ports and rows of the previous run")
    parser.add_argument("--json", type=Path, help="output file for the numbers")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = arguments_of(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.keep:
        command = [sys.executable, "-m", "benchmarks.produced", str(options.folder)]
        subprocess.run(command, cwd=data.ROOT, env={**os.environ, **QUIET}, check=True, stderr=subprocess.DEVNULL)
    towers = [tower for tower in written(options.folder) if any(part in tower.name for part in options.towers)]
    for tower in towers if not options.keep else ():
        if why := port(tower, options.folder):
            print(f"{tower.name}: not ported: {why}", file=sys.stderr)
    if options.cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cpus])  # type: ignore[attr-defined]  Linux
    engines = {
        kind: Engine(kind, options.folder, options.folder / f"{kind}.log") for kind in ("torch_towers", "tensorflow")
    }
    found: list[dict[str, Any]] = []
    began = {
        "cpu": processor(),
        "load": os.getloadavg()[0],
        "busy": options.busy,
        "clock": options.clock,
        "cpus": options.cpus or os.cpu_count(),
    }
    print(json.dumps(began))
    print(
        "| tower | rows | way | torch_towers, ms | TensorFlow, ms | ratio |\n| --- | ---: | --- | ---: | ---: | ---: |"
    )
    start = time.monotonic()
    with busy(options.busy):
        for tower in towers:
            try:
                for cell in cells(tower, engines, options):
                    found.append(cell)
                    print(
                        f"| {tower.name} | {cell['rows']} | {cell['way']} | {cell['ms']:.3f} | {cell['tensorflow_ms']:.3f} | {cell['ratio']:.2f} |",
                        flush=True,
                    )
            except RefusedError as error:
                print(f"{tower.name}: {error}", file=sys.stderr, flush=True)
    for engine in engines.values():
        engine.close()
    print("\n".join(summary(found)))
    print(f"\n{len({cell['tower'] for cell in found})} towers, {time.monotonic() - start:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"machine": began, "cells": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
