"""torch_towers, TensorFlow and ONNX Runtime compared: `python -m benchmarks.run`, a table and JSON.

Each engine runs in a separate process; they take turns within one run, so that disturbances affect all of them. Each
round gives every engine the same batch; the ratio of two engines is that of their medians, its spread the quartiles of
the ratios per round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.towers import saved_model

BATCHES = (1, 32, 1024, 16384)
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
QUIET["PYTHONDONTWRITEBYTECODE"] = ""  # installed packages have byte code
QUIET["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "torch_towers_benchmarks" / "pycache")
OTHERS = ("tensorflow", "onnxruntime")
TOO_LARGE = {"brute force": 1024, **dict.fromkeys(data.IMAGE_TOWERS, 1024)}
"""TensorFlow's index holds the scores of all candidates for all queries at once: 6.5 GB for 16,384 queries. Images take
minutes."""


class Engine:
    """A worker process: `engine.ask(...)` returns its answer."""

    def __init__(self, kind: str, path: Path, tower: str) -> None:
        quiet = {"onnxruntime": subprocess.DEVNULL, "tensorflow": subprocess.DEVNULL}.get(kind)
        command = [sys.executable, "-m", "benchmarks.worker", kind, str(path), tower]
        self._process = subprocess.Popen(
            command, cwd=data.ROOT, env={**os.environ, **QUIET}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet,
        )  # fmt: skip
        self.first: float = self._read()["first"]

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine ended with status {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


def port(source: Path, target: Path) -> Path:
    """A new checkpoint of the SavedModel: the porter may have changed."""
    from porting.saved_model import read
    from porting.tower import port_tower
    from torch_towers import Side, save_checkpoint

    ported = port_tower(read(source))
    side = Side(ported.spec, ported.store, ported.frozen)
    save_checkpoint(target, query=side, candidate=None, similarity="dot", source={}, extra_files={})
    return target


def onnx(source: Path, target: Path) -> Path | None:
    """The tower as ONNX, or None if tf2onnx cannot convert it."""
    failed = target.with_suffix(".failed")
    if not target.exists() and not failed.exists():
        command = [
            sys.executable,
            "-m",
            "tf2onnx.convert",
            "--saved-model",
            str(source),
            "--output",
            str(target),
            "--opset",
            "18",
        ]
        done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
        if done.returncode or not target.exists():
            failed.write_text(done.stderr[-4000:])
    return target if target.exists() else None


def engines_of(tower: str, folder: Path) -> dict[str, Engine]:
    """Starts the engines that can run a tower."""
    source = saved_model(folder, tower)
    name = tower.replace(" ", "_")
    paths = {"torch_towers": port(source, folder / f"{name}.port"), "tensorflow": source}
    converted = onnx(source, folder / f"{name}.onnx")
    if converted is not None:
        paths["onnxruntime"] = converted
    found: dict[str, Engine] = {}
    for kind, path in paths.items():
        try:
            found[kind] = Engine(kind, path, tower)
        except RuntimeError as error:
            if kind != "onnxruntime":
                raise
            print(f"  {tower}: ONNX Runtime cannot run the converted tower: {error}", file=sys.stderr)
    return found


def agree(engines: dict[str, Engine]) -> dict[str, float]:
    """The maximum distance of each engine's numbers from torch_towers', over 32 rows."""
    answers = {kind: engine.ask(batch=32, answer=True) for kind, engine in engines.items()}
    ours = answers.pop("torch_towers")
    return {kind: float(np.abs(np.array(theirs) - np.array(ours)).max()) for kind, theirs in answers.items()}


def measure(engines: dict[str, Engine], batch: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """The median seconds per call, for each engine and round; a round of an engine takes about `seconds`."""
    repeats: dict[str, int] = {}
    for kind, engine in engines.items():  # warm-up
        once = median(engine.ask(batch=batch, repeats=3))
        repeats[kind] = max(1, min(500, int(seconds / once)))
    found: dict[str, list[float]] = {kind: [] for kind in engines}
    for turn in range(rounds):
        order = list(engines) if turn % 2 == 0 else list(engines)[::-1]
        for kind in order:
            found[kind].append(median(engines[kind].ask(batch=batch, repeats=repeats[kind])))
    return found


def compared(found: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in milliseconds, and the others' time over torch_towers': median, lower and upper quartile."""
    ours = found["torch_towers"]
    result: dict[str, Any] = {"ms": {kind: median(times) * 1e3 for kind, times in found.items()}}
    for kind in OTHERS:
        if kind in found:
            ratios = [theirs / mine for theirs, mine in zip(found[kind], ours, strict=True)]
            low, _, high = quantiles(ratios, n=4)
            result[kind] = {"ratio": median(found[kind]) / median(ours), "low": low, "high": high}
    return result


def row(tower: str, batch: int, one: dict[str, Any]) -> str:
    """One line of the table."""
    shown = [f"| {tower:<20} | {batch:>6} | {one['ms']['torch_towers']:>9.3f}"]
    for kind in OTHERS:
        if kind in one:
            ratio = one[kind]
            shown.append(
                f"{one['ms'][kind]:>9.3f} | {ratio['ratio']:>5.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
            )
        else:
            shown.append(f"{'':>9} | {'not convertible':<20}")
    return " | ".join(shown) + " |"


def processor() -> str:
    """The processor's name, if the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def machine() -> dict[str, Any]:
    """Describes the machine."""
    names = ("torch", "tensorflow", "onnxruntime", "tf2onnx", "numpy", "faiss-cpu")
    return {
        "cpu": processor(), "cores": os.cpu_count(), "threads": int(QUIET["BENCHMARK_THREADS"]), "system": platform.platform(), "python": platform.python_version(),
        "load": os.getloadavg()[0], "versions": {name: version(name) for name in names},
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed compared with TensorFlow and ONNX Runtime.")
    parser.add_argument("--towers", nargs="*", default=list(data.INPUTS), help="some of: " + ", ".join(data.INPUTS))
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="seconds per engine and round")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "torch_towers_benchmarks")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads per engine")
    parser.add_argument("--json", type=Path, help="output file for the numbers")
    options = parser.parse_args(arguments)
    QUIET["OMP_NUM_THREADS"] = QUIET["BENCHMARK_THREADS"] = str(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.towers", str(options.folder)]
    subprocess.run(command, cwd=data.ROOT, env={**os.environ, **QUIET}, check=True)
    report: dict[str, Any] = {"machine": machine(), "towers": []}
    print(json.dumps(report["machine"]))
    print(
        "| tower | batch | torch_towers, ms | TensorFlow, ms | ratio (quartiles) | ONNX Runtime, ms | ratio (quartiles) |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for tower in options.towers:
        engines = engines_of(tower, options.folder)
        apart = agree(engines)
        for batch in options.batches:
            if batch > TOO_LARGE.get(tower, batch):
                continue
            one = compared(measure(engines, batch, options.rounds, options.seconds))
            print(row(tower, batch, one), flush=True)
            report["towers"].append({"tower": tower, "batch": batch, "apart": apart, **one})
        for engine in engines.values():
            engine.close()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
