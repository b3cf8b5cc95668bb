"""The time of one engine to its first embedding in a fresh process, as a JSON line of seconds per part.

python -m benchmarks.first torch_towers CHECKPOINT TOWER
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main(engine: str, path: str = "", tower: str = "") -> None:
    """Prints the seconds of `import`, `load` and `call`; for "torch" only the import.

    Nothing heavy is imported before the clock starts: numpy, which both frameworks import, counts as theirs.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects what libraries print
    start = time.perf_counter()
    package = importlib.import_module(engine)
    if engine == "torch_towers":
        assert callable(package.load)  # imports torch, and every op and layer
    if engine == "tensorflow" and tower == "sentencepiece":
        importlib.import_module("tensorflow_text")  # registers its ops
    parts = {"import": time.perf_counter() - start}
    if engine != "torch":
        parts |= _load_and_call(engine, path, tower)
    print(json.dumps(parts), file=answers, flush=True)
    os._exit(0)  # skips the frameworks' shutdown


def _load_and_call(engine: str, path: str, tower: str) -> dict[str, float]:
    from benchmarks import data, worker

    columns = data.INPUTS[tower](1)
    start = time.perf_counter()
    run = worker.ENGINES[engine](path, tower)
    loaded = time.perf_counter()
    run(columns)
    return {"load": loaded - start, "call": time.perf_counter() - loaded}


if __name__ == "__main__":
    main(*sys.argv[1:])
