"""One engine in a separate process: reads JSON requests, one per line, and answers with seconds.

python -m benchmarks.worker torch_towers CHECKPOINT TOWER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import data

THREADS = int(os.environ.get("BENCHMARK_THREADS", "0"))
"""Threads per engine; torch's are set by OMP_NUM_THREADS. 0: the engine's default."""

Run = Callable[[data.Columns], Any]
"""Python columns to numpy: the embedding, or for an index every output."""


def torch_towers_engine(path: str, tower: str) -> Run:
    """`load(path).encode_query(columns, convert_to_numpy=True)`, with its own batch size of 1024."""
    import torch_towers

    port = torch_towers.load(path).query
    assert port is not None
    if tower == "brute force":
        return lambda columns: [
            getattr(value, "numpy", lambda value=value: value)() for value in port(columns).values()
        ]
    return lambda columns: port.encode(columns, convert_to_numpy=True)


def tensorflow_engine(path: str, tower: str) -> Run:
    """The signature of `tf.saved_model.load(path)`."""
    import tensorflow as tf

    if THREADS:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    if tower == "sentencepiece" or tower.startswith("bert"):
        import tensorflow_text  # noqa: F401  registers its ops
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures["serving_default"]
    kinds = {spec.name.partition(":")[0]: spec.dtype for spec in signature.structured_input_signature[1].values()}
    names = {key: spec.dtype for key, spec in signature.structured_input_signature[1].items()} or kinds

    def run(columns: data.Columns) -> Any:
        given = {
            name: tf.constant(column, names[name]) for name, column in zip(names, _ordered(names, columns), strict=True)
        }
        outputs = [value.numpy() for value in signature(**given).values()]
        return outputs if len(outputs) > 1 else outputs[0]

    run.keep = loaded  # type: ignore[attr-defined]  variables live as long as the loaded object
    return run


def _ordered(names: Any, columns: data.Columns) -> list[Any]:
    """Columns by the signature's names; with one input, the names may differ."""
    return list(columns.values()) if len(columns) == 1 else [columns[name] for name in names]


def onnxruntime_engine(path: str, tower: str) -> Run:
    """The tower converted by tf2onnx."""
    import numpy as np
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    kinds = {"tensor(string)": object, "tensor(float)": np.float32, "tensor(int64)": np.int64}
    names = {item.name: kinds[item.type] for item in session.get_inputs()}

    def run(columns: data.Columns) -> Any:
        given = {
            name: np.asarray(column, kind)
            for (name, kind), column in zip(
                names.items(), _ordered([n.split(":")[0] for n in names], columns), strict=True
            )
        }
        outputs = session.run(None, given)
        return outputs if len(outputs) > 1 else outputs[0]

    return run


ENGINES: dict[str, Callable[[str, str], Run]] = {
    "torch_towers": torch_towers_engine,
    "tensorflow": tensorflow_engine,
    "onnxruntime": onnxruntime_engine,
}


def timed(run: Run, columns: data.Columns, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls."""
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(columns)
        seconds.append(time.perf_counter() - start)
    return seconds


def numbers(outputs: Any) -> list[list[float]]:
    """The embedding, or the scores among the outputs of an index."""
    several = outputs if isinstance(outputs, list) else [outputs]
    return next(value for value in several if value.dtype.kind == "f").tolist()


def main(engine: str, path: str, tower: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects what libraries print
    start = time.perf_counter()
    run = ENGINES[engine](path, tower)
    first = data.INPUTS[tower](1)
    run(first)
    print(json.dumps({"first": time.perf_counter() - start}), file=answers, flush=True)
    batches: dict[int, data.Columns] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        batch = asked["batch"]
        if batch not in batches:
            batches[batch] = data.INPUTS[tower](batch)
        if asked.get("answer"):
            found = numbers(run(batches[batch]))
        else:
            found = timed(run, batches[batch], asked["repeats"])
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
