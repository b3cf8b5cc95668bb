"""One engine's way to its first embedding in a fresh process, as a JSON line of seconds for each part.

python -m benchmarks.first torch_towers CHECKPOINT TOWER
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main(engine: str, path: str, tower: str) -> None:
    """Prints the seconds of `framework` and `port` (imports; TensorFlow needs no `port`), `load` and `call`.

    Nothing heavy is imported before its part: numpy, which both frameworks import, is part of theirs.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    parts: dict[str, float] = {}
    start = time.perf_counter()
    importlib.import_module("torch" if engine == "torch_towers" else "tensorflow")
    if engine == "tensorflow" and tower == "sentencepiece":
        importlib.import_module("tensorflow_text")  # its ops are there
    parts["framework"] = time.perf_counter() - start

    start = time.perf_counter()
    if engine == "torch_towers":
        import torch_towers

        assert callable(torch_towers.load)
    parts["port"] = time.perf_counter() - start

    from benchmarks import data, worker

    columns = data.INPUTS[tower](1)
    start = time.perf_counter()
    run = worker.ENGINES[engine](path, tower)
    parts["load"] = time.perf_counter() - start
    start = time.perf_counter()
    run(columns)
    parts["call"] = time.perf_counter() - start
    print(json.dumps(parts), file=answers, flush=True)
    os._exit(0)  # what taking the frameworks down costs is nobody's question


if __name__ == "__main__":
    main(*sys.argv[1:])
