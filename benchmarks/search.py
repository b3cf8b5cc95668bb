"""Exact search beside FAISS: `top_k` and `IndexFlatIP` over 1,000,000 x 64, on the same threads. `python -m benchmarks.search`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import data
from benchmarks.run import QUIET

QUERIES = (1, 32, 1000)
_WORKER = """
import json, sys, time
import numpy as np
kind, rows, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pick = np.random.default_rng(0)
candidates = pick.standard_normal((rows, 64), dtype=np.float32)
queries = pick.standard_normal((1000, 64), dtype=np.float32)
if kind == "faiss":
    import faiss
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(64)
    index.add(candidates)
    run = lambda count: index.search(queries[:count], 10)[1]
else:
    import torch
    from torch_towers.similarity import top_k
    torch.set_num_threads(threads)
    q, c = torch.from_numpy(queries), torch.from_numpy(candidates)
    run = lambda count: top_k(q[:count], c, 10)[1].numpy()
print(json.dumps(run(32).tolist()), flush=True)
for line in sys.stdin:
    count = int(line)
    start = time.perf_counter()
    run(count)
    print(time.perf_counter() - start, flush=True)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Exact search beside FAISS.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    engines = {
        kind: subprocess.Popen(
            [sys.executable, "-c", _WORKER, kind, str(options.rows), str(options.threads)], cwd=data.ROOT,
            env={**os.environ, **QUIET}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for kind in ("torch_towers", "faiss")
    }  # fmt: skip
    answers = [json.loads(engine.stdout.readline()) for engine in engines.values()]  # type: ignore[union-attr]
    report: dict[str, Any] = {
        "rows": options.rows,
        "threads": options.threads,
        "same answers": answers[0] == answers[1],
    }
    print("| queries | top_k, ms | IndexFlatIP, ms | ratio (quartiles) |\n| ---: | ---: | ---: | ---: |")
    for count in QUERIES:
        found: dict[str, list[float]] = {kind: [] for kind in engines}
        for turn in range(options.rounds + 1):
            for kind, engine in engines.items():
                print(count, file=engine.stdin, flush=True)
                seconds = float(engine.stdout.readline())  # type: ignore[union-attr]
                if turn:
                    found[kind].append(seconds)
        ratios = [theirs / ours for theirs, ours in zip(found["faiss"], found["torch_towers"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        ms = {kind: median(seconds) * 1e3 for kind, seconds in found.items()}
        ratio = ms["faiss"] / ms["torch_towers"]
        print(
            f"| {count} | {ms['torch_towers']:.2f} | {ms['faiss']:.2f} | {ratio:.2f} ({low:.2f} to {high:.2f}) |",
            flush=True,
        )
        report[str(count)] = {"ms": ms, "ratio": ratio, "low": low, "high": high}
    for engine in engines.values():
        engine.communicate()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
