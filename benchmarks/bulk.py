"""A bulk embedding of generated rows: rows per second, memory, and whether every row is there once after kills at random moments.

python benchmarks/bulk.py [--rows 1000000] [--kills 3] [--json]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "packages"
LIMIT_MB = 1500


def generate(path: Path, rows: int, seed: int = 0) -> None:
    """Rows for the demo's candidate tower: real descriptions with words of others mixed in, so that few are equal."""
    with (ROOT / "examples/packages/packages.tsv").open(encoding="utf-8") as file:
        known = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    words = [word for row in known for word in row["description"].split()]
    choose = np.random.default_rng(seed)
    schema = pa.schema(
        [
            ("sku", pa.string()),
            ("name", pa.string()),
            ("section", pa.string()),
            ("size", pa.float32()),
            ("description", pa.string()),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 100_000):
            n = min(100_000, rows - start)
            base = [known[i] for i in choose.integers(0, len(known), n)]
            more = choose.integers(0, len(words), (n, 4))
            columns: list[Any] = [
                [f"sku-{start + i:09d}" for i in range(n)],
                [row["name"] for row in base],
                [row["section"] for row in base],
                np.array([float(row["size"]) for row in base], np.float32),
                [
                    " ".join([row["description"], *(words[w] for w in ws)])
                    for row, ws in zip(base, more.tolist(), strict=True)
                ],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def embed(checkpoint: Path, items: Path, output: Path, kill_after: float | None) -> tuple[int, float, float]:
    """Runs the command, or kills it after some seconds: exit status, seconds, and the most memory it held (MB)."""
    command = [
        sys.executable, "-m", "torch_towers.cli", "embed", str(checkpoint), "--tower", "candidate", "--input", str(items),
        "--output", str(output), "--id-column", "sku", "--rows-per-part", "16384", "--quiet",
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    most = 0.0
    while process.poll() is None:
        most = max(most, resident(process.pid))
        if kill_after is not None and time.monotonic() - began > kill_after:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    return process.returncode, time.monotonic() - began, most


def resident(pid: int) -> float:
    """The most memory that the process has held so far, in MB (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> int:
    """Generates, embeds, kills, resumes, checks; exit status 1 where a row is missing or twice, or memory was over the limit."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--kills", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the demo's (make demo)")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    choose = random.Random(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="bulk-"))
    try:
        items, output = folder / "items.parquet", folder / "embeddings"
        generate(items, given.rows, given.seed)
        kills, worst, busy = 0, 0.0, 0.0
        while True:
            after = choose.uniform(4.0, 25.0) if kills < given.kills else None
            status, seconds, most = embed(given.checkpoint, items, output, after)
            worst, busy = max(worst, most), busy + seconds
            if status == 0:
                break
            if status != -signal.SIGKILL:
                print(f"embed ended with status {status}", file=sys.stderr)
                return 1
            kills += 1
        ids = pq.read_table(output, columns=["id"])["id"].to_pylist()
        once = len(ids) == given.rows and len(set(ids)) == given.rows
        found = {
            "rows": given.rows, "kills": kills, "every_row_once": once, "seconds": round(busy, 1),
            "rows_per_second": round(given.rows / busy), "most_memory_mb": round(worst), "limit_mb": LIMIT_MB,
            "input_mb": round(items.stat().st_size / 1e6, 1), "cpus": os.cpu_count(),
        }  # fmt: skip
        print(json.dumps(found) if given.json else "\n".join(f"{key:<16} {value}" for key, value in found.items()))
        return 0 if once and worst < LIMIT_MB else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
