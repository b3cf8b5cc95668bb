"""The towers on a GPU: `python -m benchmarks.device`, a table and JSON. `--device cpu` tries it without one.

For each tower, number of rows and dtype: the whole call from Python columns to a numpy array; its host part; the
encoder alone on tensors on the device, eager and compiled; and the roofline of the device's arithmetic and memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch

import torch_towers
from benchmarks import data
from benchmarks.roofline import Least, Limits, least_of, limits_of, synchronize
from benchmarks.run import BATCHES, QUIET, TOO_LARGE, port, processor
from benchmarks.towers import saved_model
from torch_towers import Tower
from torch_towers.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MODES = ("default", "reduce-overhead", "max-autotune")
NO_DEVICE = "there is no CUDA device, so nothing was measured: try the benchmark itself with --device cpu"
HEADER = "tower, dtype, rows, `encode` ms, host's part ms, encoder ms, compiled ms, least ms, bound by, reached, off CPU's by"


def checkpoint(tower: str, folder: Path) -> Path:
    """The tower's checkpoint, ported again if its SavedModel exists; one ported elsewhere works without TensorFlow."""
    source, target = saved_model(folder, tower), folder / f"{tower.replace(' ', '_')}.port"
    if source.exists():
        return port(source, target)
    if not target.exists():
        command = [sys.executable, "-m", "benchmarks.towers", str(folder)]
        subprocess.run(command, cwd=data.ROOT, env={**os.environ, **QUIET}, check=True)
        return port(source, target)
    return target


def loaded(path: Path) -> Tower:
    """The tower of a checkpoint, in float32 on the CPU."""
    tower = torch_towers.load(path).query
    assert tower is not None
    return tower


def timed(run: Callable[[], Any], device: torch.device, options: argparse.Namespace) -> list[float]:
    """Milliseconds per call in each round: consecutive calls between synchronizations."""

    def calls(count: int) -> float:
        synchronize(device)
        began = time.perf_counter()
        for _ in range(count):
            run()
        synchronize(device)
        return (time.perf_counter() - began) / count

    calls(3)  # warms up
    repeats = max(1, min(500, int(options.seconds / calls(1))))
    return [calls(repeats) * 1e3 for _ in range(options.rounds)]


def spread(times: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = quantiles(times, n=4) if len(times) > 1 else times * 3
    return {"ms": median(times), "low": low, "high": high}


def on_host(tower: Tower, columns: data.Columns, rows: int, batch_size: int) -> None:
    """The work of `encode` before the device can start: reading and preprocessing, batch by batch."""
    for start in range(0, rows, batch_size):
        tower.preprocess({name: value[start : start + batch_size] for name, value in columns.items()})


def compiled(tower: Tower, inputs: dict[str, Any], mode: str) -> Callable[[], Any]:
    """The encoder compiled for these shapes and warmed up."""
    torch.compiler.reset()
    encoder: Any = torch.compile(tower.encoder, dynamic=False, mode=mode)
    encoder(**inputs)
    return lambda: encoder(**inputs)


def measure(tower: Tower, columns: data.Columns, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """The times of one tower for one batch, and its roofline."""
    size = options.batch_size

    def time_of(run: Callable[[], Any]) -> dict[str, float]:
        return spread(timed(run, tower.device, options))

    found: dict[str, Any] = {
        "encode": time_of(lambda: tower.encode(columns, batch_size=size, convert_to_numpy=True)),
        "host": time_of(lambda: on_host(tower, columns, rows, size)),
    }
    inputs = tower._on_device(tower.preprocess(columns))
    with torch.inference_mode():
        found["encoder"] = time_of(lambda: tower.encoder(**inputs))
    if options.compiled:
        try:
            with torch.no_grad():
                found["compiled"] = time_of(compiled(tower, inputs, options.compiled))
        except Exception as error:  # a missing or failing compiler: measure the rest
            found["compiled"] = {"error": f"{type(error).__name__}: {error}"[:500]}
    return {**found, "least": least_of(tower.encoder, inputs)}


def against(found: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Compares the encoder's time with the roofline; empty if its products were not counted."""
    least: Least = found.pop("least")
    if math.isinf(least.multiplications):
        return {**found, "least": None}
    ms = least.seconds(limits) * 1e3
    shown = {"ms": ms, "bound": least.bound(limits), "reached": ms / found["encoder"]["ms"]}
    return {**found, "least": {"multiplications": least.multiplications, "bytes": least.bytes, **shown}}


def apart(tower: Tower, expected: np.ndarray, columns: data.Columns) -> float:
    """The maximum distance of the embeddings from the CPU's in float32."""
    return float(np.abs(tower.encode(columns, convert_to_numpy=True).astype(np.float32) - expected).max())


def row(one: dict[str, Any]) -> str:
    """One line of the table."""
    fast, least = one.get("compiled", {}), one["least"]
    cells = [f"{one['tower']:<19}", f"{one['dtype']:<8}", f"{one['batch']:>6}"]
    cells += [f"{one[part]['ms']:>9.3f}" for part in ("encode", "host", "encoder")]
    cells.append(f"{fast['ms']:>9.3f}" if "ms" in fast else f"{'fails' if fast else '':>9}")
    cells += [f"{least['ms']:>9.5f}", f"{least['bound']:<10}", f"{least['reached']:>6.1%}"] if least else [""] * 3
    return f"| {' | '.join([*cells, format(one['apart'], '.0e')])} |"


def rows_of(
    tower: str, path: Path, dtype: str, limits: Limits, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Every batch of a tower in one dtype."""
    few = data.INPUTS[tower](32)
    expected = loaded(path).encode(few, convert_to_numpy=True)
    moved = loaded(path).to(options.device, DTYPES[dtype])
    off = apart(moved, expected, few)
    for batch in options.batches:
        if batch <= TOO_LARGE.get(tower, batch):
            times = against(measure(moved, data.INPUTS[tower](batch), batch, options), limits)
            yield {"tower": tower, "dtype": dtype, "batch": batch, "apart": off, **times}


def results(
    tower: str, path: Path, dtype: str, limits: Limits, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The rows, printed as they are measured; a reason in place of those whose numbers do not fit float16."""
    try:
        for one in rows_of(tower, path, dtype, limits, options):
            print(row(one), flush=True)
            yield one
    except InputError as error:
        print(f"  {tower}, {dtype}: {error}", file=sys.stderr)
        yield {"tower": tower, "dtype": dtype, "error": str(error)}


def machine(device: torch.device) -> dict[str, Any]:
    """Describes the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": name, "cpu": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
        "system": platform.platform(), "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
    }  # fmt: skip


def allow_tf32(allowed: bool) -> None:
    """Sets TensorFloat-32, which has 10 mantissa bits instead of 23: torch's convolutions use it by default."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The towers on a GPU, compared with its limits.")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="cuda, cuda:1, ..., cpu")
    parser.add_argument("--towers", nargs="*", default=list(data.INPUTS), help="some of: " + ", ".join(data.INPUTS))
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--dtypes", nargs="*", choices=DTYPES, default=["float32"])
    parser.add_argument("--compiled", nargs="?", choices=MODES, const="default", help="also under torch.compile")
    parser.add_argument("--tf32", action="store_true", help="allow TensorFloat-32 for float32")
    parser.add_argument("--batch-size", type=int, default=1024, help="of `encode`")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.15, help="seconds per round")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "torch_towers_benchmarks")
    parser.add_argument("--json", type=Path, help="output file for the numbers")
    options = parser.parse_args(arguments)
    if options.device.type not in ("cuda", "cpu"):
        parser.error(f"--device {options.device} is neither a CUDA device nor the CPU, which are what towers run on")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print(NO_DEVICE)
        return 0
    allow_tf32(options.tf32)
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = {tower: checkpoint(tower, options.folder) for tower in options.towers}
    limits = {dtype: limits_of(options.device, DTYPES[dtype]) for dtype in options.dtypes}
    report: dict[str, Any] = {
        "machine": machine(options.device),
        "tf32": options.tf32,
        "batch_size": options.batch_size,
    }
    report["limits"] = {dtype: vars(measured) for dtype, measured in limits.items()}
    print(json.dumps(report))
    print(f"| {HEADER.replace(', ', ' | ')} |\n| --- | --- |{' ---: |' * 6} --- | ---: | ---: |")
    report["towers"] = []
    for tower, path in paths.items():
        for dtype in options.dtypes:
            report["towers"] += results(tower, path, dtype, limits[dtype], options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
