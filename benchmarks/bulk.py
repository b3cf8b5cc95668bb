"""Bulk commands on generated rows: throughput, memory, and completeness after kills.

python -m benchmarks.bulk [--rows 1000000] [--kills 3] [--json FILE]

Embeds Parquet, CSV and Vertex training pairs to Parquet, .npy and Vector Search files, killed by SIGKILL at random
moments and resumed. Embeds once more on a local Ray, which must write the same bytes. Then searches and scores the
output.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import filecmp
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "packages"
LIMIT_MB = 1500
TRIES = 20  # for a job that finishes before it can be killed
QUERIES = ["edit photos", "play chess", "compress files"]
SAMPLE = 997  # one in this many rows of Vector Search's files is compared number by number


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one command. `memory_mb`: the peak of its process; with Ray, the total of all its processes."""

    name: str
    rows: int
    seconds: float
    memory_mb: float
    kills: int = 0
    right: bool = True
    limited: bool = True

    @property
    def good(self) -> bool:
        return self.right and (not self.limited or self.memory_mb < LIMIT_MB)


# -- rows ---------------------------------------------------------------------------------------------------------------


def generate(path: Path, rows: int, seed: int = 0) -> None:
    """Rows for the demo's candidate tower: real descriptions mixed with words of others, so that few are equal."""
    with (ROOT / "examples/packages/packages.tsv").open(encoding="utf-8") as file:
        known = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    words = [word for row in known for word in row["description"].split()]
    choose = np.random.default_rng(seed)
    text = pa.string()
    schema = pa.schema(
        [("sku", text), ("name", text), ("section", text), ("size", pa.float32()), ("description", text)]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 100_000):
            n = min(100_000, rows - start)
            base = [known[i] for i in choose.integers(0, len(known), n)]
            more = choose.integers(0, len(words), (n, 4))
            columns: list[Any] = [
                ids(start, n),
                [row["name"] for row in base],
                [row["section"] for row in base],
                np.array([float(row["size"]) for row in base], np.float32),
                [
                    " ".join([row["description"], *(words[w] for w in ws)])
                    for row, ws in zip(base, more.tolist(), strict=True)
                ],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def ids(start: int, count: int) -> list[str]:
    """The ids of the rows from `start` on."""
    return [f"sku-{row:09d}" for row in range(start, start + count)]


def as_csv(items: Path, path: Path) -> None:
    """The same rows as CSV."""
    file = pq.ParquetFile(items)
    with pyarrow.csv.CSVWriter(path, file.schema_arrow) as writer:
        for batch in file.iter_batches():
            writer.write_batch(batch)


def as_pairs(items: Path, path: Path) -> None:
    """The same rows as the candidates of Vertex training pairs, every value a list."""
    with path.open("w", encoding="utf-8") as file:
        for batch in pq.ParquetFile(items).iter_batches():
            for row in batch.to_pylist():
                pair = {"query": {"text": [row["name"]]}, "candidate": {name: [value] for name, value in row.items()}}
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")


# -- processes ----------------------------------------------------------------------------------------------------------


class Process:
    """A monitored command: its seconds and peak memory (Linux)."""

    def __init__(self, arguments: Sequence[str], *, output: Path | None = None, tree: bool = False) -> None:
        self.seconds = self.memory_mb = 0.0
        command = [sys.executable, "-m", "torch_towers.cli", *arguments]
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            out = subprocess.DEVNULL if output is None else stack.enter_context(output.open("wb"))
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=out)
            self.wait = self._watched(began, tree)
            next(self.wait)

    def _watched(self, began: float, tree: bool) -> Iterator[None]:
        while self._process.poll() is None:
            yield
            held = together(self._process.pid) if tree else status(self._process.pid).get("VmHWM", 0.0)
            self.memory_mb = max(self.memory_mb, held)
            self.seconds = time.monotonic() - began
            time.sleep(0.25 if tree else 0.02)

    def end(self) -> int:
        """Waits and returns the exit status."""
        for _ in self.wait:
            pass
        return self._process.returncode

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)


def status(pid: int | str) -> dict[str, float]:
    """The process's memory statistics, in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return {}
    pairs = [line.split()[:2] for line in lines]
    return {pair[0][:-1]: int(pair[1]) / 1024 for pair in pairs if len(pair) == 2 and pair[0].startswith("Vm")}


def together(pid: int) -> float:
    """The memory of a process and its descendants in MB, with shared pages counted once (PSS)."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    family, more = {pid}, True
    while more:
        found = {child for child, parent in parents.items() if parent in family} - family
        more = bool(found)
        family |= found
    total = 0.0
    for member in family:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
    return total


# -- steps --------------------------------------------------------------------------------------------------------------


class Bench:
    """The commands on one set of rows, in their own folder."""

    def __init__(self, folder: Path, checkpoint: Path, rows: int, kills: int, seed: int) -> None:
        self.folder, self.checkpoint, self.rows, self.kills = folder, checkpoint, rows, kills
        self.choose = random.Random(seed)
        self.steps: list[Step] = []
        self.items = folder / "items.parquet"
        self.rows_per_part = max(1024, rows // 60 // 1024 * 1024)
        generate(self.items, rows, seed)

    def add(self, step: Step) -> None:
        self.steps.append(step)
        print(row_of(step), flush=True)

    def embed(self, name: str, source: Path, output: Path, *options: str, kills: int = 0, ray: bool = False) -> Step:
        """`torch-towers embed`, killed and restarted until it finishes."""
        command = ["embed", str(self.checkpoint), "--tower", "candidate", "--input", str(source), "--output", str(output),
                   "--id-column", "sku", "--rows-per-part", str(self.rows_per_part), "--quiet", *options]  # fmt: skip
        job = output.with_name(output.name + ".job")
        step = self._killed(name, command, job / "manifest.jsonl", kills, ray)
        for _ in range(TRIES):
            if step.kills == kills or kills > 1:
                break
            for folder in (output, job):  # it finished before the kill: start over without delay
                shutil.rmtree(folder, ignore_errors=True)
            step = self._killed(name, command, job / "manifest.jsonl", kills, ray, delay=False)
        return step

    def _killed(
        self, name: str, command: list[str], manifest: Path, kills: int, ray: bool, *, delay: bool = True
    ) -> Step:
        """The job with its kills, each some time after a part in its share of the parts, or at once without `delay`."""
        parts = -(-self.rows // self.rows_per_part)
        seconds = most = 0.0
        killed = 0
        while True:
            process = Process(command, tree=ray)
            if killed < kills:
                after = self.choose.randint(killed * parts // (kills + 1), (killed + 1) * parts // (kills + 1))
                late = self.choose.uniform(0, 0.2)
                for _ in process.wait:
                    if manifest.exists() and (not delay or manifest.read_bytes().count(b"\n") > after):
                        time.sleep(late if delay else 0)
                        process.kill()
                        break
            ended = process.end()
            seconds, most = seconds + process.seconds, max(most, process.memory_mb)
            if ended != -signal.SIGKILL:
                break
            killed += 1
        return Step(name, self.rows, seconds, most, killed, ended == 0 and (not kills or killed > 0), not ray)

    def command(self, name: str, rows: int, *arguments: str) -> tuple[Step, Path]:
        """Runs another command; returns its result and the file with its output."""
        shown = self.folder / "shown"
        process = Process([arguments[0], str(self.checkpoint), *arguments[1:]], output=shown)
        ended = process.end()
        return Step(name, rows, process.seconds, process.memory_mb, right=ended == 0), shown

    def run(self, ray: bool) -> None:
        """All steps."""
        whole, csv_file, pairs = self.folder / "whole", self.folder / "items.csv", self.folder / "pairs.jsonl"
        step = self.embed("embed Parquet as Parquet", self.items, whole)
        self.add(checked(step, step.right and self.in_order(pq.read_table(whole, columns=["id"])["id"].to_pylist())))
        vectors = vectors_of(whole)

        step = self.embed("the same, killed", self.items, self.folder / "again", kills=self.kills)
        self.add(checked(step, step.right and same_files(whole, self.folder / "again")))
        shutil.rmtree(self.folder / "again")

        npy = self.folder / "npy"
        step = self.embed("embed Parquet as .npy", self.items, npy, "--format", "npy", kills=self.kills)
        self.add(checked(step, step.right and self.npy_is(npy, vectors)))

        as_csv(self.items, csv_file)
        out = self.folder / "vertex"
        options = ["--restrict", "section", "--numeric-restrict", "size:float", "--crowding-tag", "section"]
        step = self.embed(
            "embed CSV as Vertex JSON", csv_file, out, "--format", "vertex-json", *options, kills=self.kills
        )
        self.add(checked(step, step.right and self.vertex_json_is(out, vectors)))
        csv_file.unlink()
        shutil.rmtree(out)

        as_pairs(self.items, pairs)
        out = self.folder / "avro"
        step = self.embed(
            "embed Vertex pairs as Avro", pairs, out, "--format", "vertex-avro", *options, kills=self.kills
        )
        self.add(checked(step, step.right and self.avro_is(out, vectors)))
        pairs.unlink()
        shutil.rmtree(out)

        if ray:
            step = self.embed(
                "embed on Ray (all its processes)", self.items, self.folder / "ray", "--engine", "ray", ray=True
            )
            self.add(checked(step, step.right and same_files(whole, self.folder / "ray")))
            shutil.rmtree(self.folder / "ray")
        self.run_searches(whole, npy, vectors)
        for name in ("info", "verify"):
            self.add(self.command(name, 0, name)[0])

    def run_searches(self, whole: Path, npy: Path, vectors: np.ndarray[Any, Any]) -> None:
        """search and similarity on embed's output, in files and in an index."""
        from torch_towers import load

        towers = load(self.checkpoint)
        scores = towers.similarity(towers.encode_query(QUERIES), vectors).numpy()
        asked = [part for query in QUERIES for part in ("--query", query)]
        index = str(self.folder / "index")
        for name, *where in (
            ("search in Parquet", "--candidates", str(whole)), ("search in .npy", "--candidates", str(npy)),
            ("search, index kept", "--candidates", str(whole), "--save-index", index), ("search in the index", "--index", index),
        ):  # fmt: skip
            step, shown = self.command(name, self.rows, "search", *asked, "-k", "10", "--json", *where)
            self.add(checked(step, step.right and best_are(shown, scores)))
        for name, where in (("similarity with Parquet", whole), ("similarity with .npy", npy)):
            step, shown = self.command(name, self.rows, "similarity", *asked, "--candidates", str(where))
            self.add(checked(step, step.right and self.scores_are(shown, scores)))

    # -- checks -----------------------------------------------------------------------------------------------------------

    def in_order(self, found: Sequence[Any]) -> bool:
        """Checks that every row is present once, in input order."""
        return list(found) == ids(0, self.rows)

    def npy_is(self, folder: Path, vectors: np.ndarray[Any, Any]) -> bool:
        found = np.load(folder / "embeddings.npy", mmap_mode="r")
        named = (folder / "ids.txt").read_text().splitlines()
        return bool(np.array_equal(found, vectors)) and self.in_order(named)

    def vertex_json_is(self, folder: Path, vectors: np.ndarray[Any, Any]) -> bool:
        found: list[str] = []
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                for line in file:
                    found.append(line.split(b'"', 4)[3].decode())
                    if len(found) % SAMPLE == 1:
                        row = json.loads(line)
                        if not same_vector(row["embedding"], vectors[len(found) - 1]) or "crowding_tag" not in row:
                            return False
        return self.in_order(found)

    def avro_is(self, folder: Path, vectors: np.ndarray[Any, Any]) -> bool:
        import fastavro

        found: list[str] = []
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                for row in fastavro.reader(file):
                    found.append(row["id"])
                    if len(found) % SAMPLE == 1 and not same_vector(row["embedding"], vectors[len(found) - 1]):
                        return False
        return self.in_order(found)

    def scores_are(self, shown: Path, scores: np.ndarray[Any, Any]) -> bool:
        named: list[str] = []
        found = np.empty(scores.shape[::-1], np.float32)
        with shown.open(encoding="utf-8") as file:
            for row, line in enumerate(file):
                name, *values = line.rstrip("\n").split("\t")
                named.append(name)
                found[row] = [float(value) for value in values]
        return self.in_order(named) and bool(np.allclose(found, scores.T, atol=2e-6))


def checked(step: Step, right: bool) -> Step:
    """The step with its verdict."""
    return Step(**{**asdict(step), "right": right})


def vectors_of(folder: Path) -> np.ndarray[Any, Any]:
    """The embeddings in embed's Parquet output."""
    column = pq.read_table(folder, columns=["embedding"])["embedding"].combine_chunks()
    return np.array(column.flatten()).reshape(len(column), -1)


def same_files(one: Path, other: Path) -> bool:
    """Whether both folders have the same files with the same bytes."""
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return filecmp.cmpfiles(one, other, names, shallow=False)[1:] == ([], [])


def same_vector(found: Sequence[float], wanted: np.ndarray[Any, Any]) -> bool:
    return bool(np.array_equal(np.array(found, np.float64).astype(np.float32), wanted))


def best_are(shown: Path, scores: np.ndarray[Any, Any]) -> bool:
    """Whether the results have the ten best scores, and each id its score."""
    lines = [json.loads(line) for line in shown.read_text().splitlines()]
    for line, row in zip(lines, scores, strict=True):
        hits = line["results"]
        best = np.sort(row)[::-1][: len(hits)]
        own = [row[int(hit["id"].removeprefix("sku-"))] for hit in hits]
        given = [hit["score"] for hit in hits]
        if len(hits) != min(10, len(row)) or not (
            np.allclose(given, best, atol=2e-6) and np.allclose(given, own, atol=2e-6)
        ):
            return False
    return len(lines) == len(scores)


# -- report -------------------------------------------------------------------------------------------------------------

HEAD = "| command | rows | seconds | rows/s | memory, MB | kills | right |\n| --- | ---: | ---: | ---: | ---: | ---: | --- |"


def row_of(step: Step) -> str:
    """A row of the table."""
    rate = f"{step.rows / step.seconds:,.0f}" if step.rows else ""
    right = "yes" if step.good else "over the limit" if step.right else "NO"
    return f"| {step.name} | {step.rows:,} | {step.seconds:.1f} | {rate} | {step.memory_mb:.0f} | {step.kills or ''} | {right} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; exit status 1 if a row is missing or duplicated, bytes differ, or memory exceeds the limit."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--kills", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the demo's")
    options.add_argument("--no-ray", action="store_true", help="skip Ray")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    given = options.parse_args(arguments)
    ray = not given.no_ray and importlib.util.find_spec("ray") is not None
    folder = Path(tempfile.mkdtemp(prefix="bulk-"))
    print(f"limit {LIMIT_MB} MB a process; {os.cpu_count()} cores" + ("" if ray else "; without Ray") + "\n\n" + HEAD)
    try:
        bench = Bench(folder, given.checkpoint, given.rows, given.kills, given.seed)
        bench.run(ray)
        if given.json is not None:
            given.json.write_text(json.dumps([{**asdict(step), "good": step.good} for step in bench.steps], indent=1))
        return 0 if all(step.good for step in bench.steps) else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
