"""Exact search compared with FAISS and the machine's limits: `python -m benchmarks.search`.

`top_k` and `IndexFlatIP` over 1,000,000 x 64, on the same threads, and a lower bound for any such search: reading
the candidates once, or multiplying at the rate of torch's best matmul. All three take turns in one run. The
share of the limit uses the fastest calls, so that other load does not count.
"""

from __future__ import annotations

import argparse
import json
import math
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
ENGINES = ("torch_towers", "faiss")
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
elif kind == "limit":
    import torch
    from torch.nn.functional import linear
    torch.set_num_threads(threads)
    c, wide = torch.from_numpy(candidates), torch.randn(2, 1024, 1024)
    fused = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    products = [lambda: linear(*wide)] + ([lambda: fused(*wide, None, "none", [], "")] if fused else [])
    def least(runs):
        found = []
        for run in runs * 5:
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return min(found)
    for line in sys.stdin:
        memory = least([lambda: c.sum(), lambda: c.view(-1).dot(c.view(-1))])
        arithmetic = least(products) / 2**30 * int(line) * rows * 64
        print(memory, arithmetic, flush=True)
    sys.exit()
else:
    import torch
    from torch_towers.search.similarity import top_k
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
    parser = argparse.ArgumentParser(description="Exact search compared with FAISS.")
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
        for kind in (*ENGINES, "limit")
    }  # fmt: skip
    answers = [json.loads(engines[kind].stdout.readline()) for kind in ENGINES]  # type: ignore[union-attr]
    report: dict[str, Any] = {
        "rows": options.rows,
        "threads": options.threads,
        "same answers": answers[0] == answers[1],
    }
    print("| queries | top_k, ms | IndexFlatIP, ms | ratio (quartiles) | limit, ms | of it |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for count in QUERIES:
        found: dict[str, list[float]] = {kind: [] for kind in ENGINES}
        memory, arithmetic = math.inf, math.inf
        for turn in range(options.rounds + 1):
            for kind in ENGINES:
                seconds = _asked(engines[kind], count)[0]
                if turn:
                    found[kind].append(seconds)
            read, multiply = _asked(engines["limit"], count)
            memory, arithmetic = min(memory, read), min(arithmetic, multiply)
        ratios = [theirs / ours for theirs, ours in zip(found["faiss"], found["torch_towers"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        ms = {kind: median(seconds) * 1e3 for kind, seconds in found.items()}
        limit, bound = max((memory * 1e3, "memory"), (arithmetic * 1e3, "products"))
        ratio, share = ms["faiss"] / ms["torch_towers"], limit / (min(found["torch_towers"]) * 1e3)
        print(
            f"| {count} | {ms['torch_towers']:.2f} | {ms['faiss']:.2f} | {ratio:.2f} ({low:.2f} to {high:.2f}) "
            f"| {limit:.2f} ({bound}) | {share:.0%} |",
            flush=True,
        )
        limits = {"memory": memory * 1e3, "products": arithmetic * 1e3, "of it": share}
        report[str(count)] = {"ms": ms, "ratio": ratio, "low": low, "high": high, "limit": limits}
    for engine in engines.values():
        engine.communicate()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _asked(engine: subprocess.Popen[str], count: int) -> list[float]:
    print(count, file=engine.stdin, flush=True)
    return [float(part) for part in engine.stdout.readline().split()]  # type: ignore[union-attr]


if __name__ == "__main__":
    sys.exit(main())
