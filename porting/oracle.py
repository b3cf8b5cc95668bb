"""TensorFlow's own answers: the one file that imports tensorflow, always in a process of its own.

    with Oracle() as oracle:
        answers = oracle.run("query_model", ("serve",), "serving_default", [{"user": array}, ...])

The process is started once and answers many questions. `python -m porting.oracle` is that process: it reads one JSON request a
line and writes one JSON answer a line; arrays travel in files beside it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from porting.arrays import load_arrays, save_arrays
from porting.errors import PortingError

Arrays = Mapping[str, np.ndarray[Any, Any]]
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # oneDNN's own rounding is not the reference
    "TF_USE_LEGACY_KERAS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def tensorflow_installed() -> bool:
    """Whether a process of its own could import TensorFlow."""
    return importlib.util.find_spec("tensorflow") is not None


class Oracle:
    """A running TensorFlow process. Use it in a `with` statement."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="torch-towers-oracle-")
        self._log = open(Path(self._folder.name) / "log", "w+b")  # noqa: SIM115  closed in __exit__
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "porting.oracle"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
        )  # fmt: skip
        self._requests = 0

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def run(
        self, model: str | os.PathLike[str], tags: Sequence[str], entry: str, batches: Sequence[Arrays]
    ) -> list[Any]:
        """TensorFlow's outputs for each batch, by name; where TensorFlow refused the batch, its message (a str) instead.

        `batches` are keyed by the names of `SavedModel.graph(entry).inputs`. Errors: PortingError where TensorFlow cannot
        load the model at all.
        """
        return self._ask({"model": os.fspath(Path(model).resolve()), "tags": list(tags), "entry": entry}, batches)

    def _ask(self, request: dict[str, Any], batches: Sequence[Arrays]) -> list[Any]:
        self._requests += 1
        asked = Path(self._folder.name) / f"{self._requests}-inputs.npz"
        answered = Path(self._folder.name) / f"{self._requests}-outputs.npz"
        save_arrays(asked, {f"{i}|{name}": array for i, batch in enumerate(batches) for name, array in batch.items()})
        line = json.dumps({**request, "inputs": str(asked), "outputs": str(answered), "count": len(batches)})
        try:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            raise PortingError(f"TensorFlow's process ended without an answer: {self._last_words()}")
        answer = json.loads(reply)
        if "error" in answer:
            raise PortingError(f"TensorFlow could not run {request['model']} ({request['entry']}): {answer['error']}")
        arrays = load_arrays(answered)
        return [
            error if error is not None else _of_batch(arrays, i) for i, error in enumerate(answer["errors"])
        ]  # fmt: skip

    def _last_words(self) -> str:
        self._log.flush()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


def _of_batch(arrays: Arrays, index: int) -> dict[str, np.ndarray[Any, Any]]:
    prefix = f"{index}|"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


# -- the process ----------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answers requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever TensorFlow prints must not end up among the answers
    runners: dict[tuple[Any, ...], Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(request, runners)
        except Exception as error:
            answer = {"error": _sentence(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: dict[str, Any], runners: dict[tuple[Any, ...], Any]) -> dict[str, Any]:
    key = (request["model"], tuple(request["tags"]), request["entry"])
    if key not in runners:
        runners[key] = _runner(*key)
    arrays = load_arrays(Path(request["inputs"]))
    outputs: dict[str, np.ndarray[Any, Any]] = {}
    errors: list[str | None] = []
    for i in range(request["count"]):
        try:
            result = runners[key](_of_batch(arrays, i))
            outputs.update({f"{i}|{name}": value for name, value in result.items()})
            errors.append(None)
        except Exception as error:
            errors.append(_sentence(error))
    save_arrays(Path(request["outputs"]), outputs)
    return {"errors": errors}


def _sentence(error: Exception) -> str:
    message = str(getattr(error, "message", None) or error).strip()
    return f"{type(error).__name__}: {message.splitlines()[0] if message else ''}"


def _runner(model: str, tags: tuple[str, ...], entry: str) -> Any:
    """A function from named arrays to named arrays: the signature in a session, as TensorFlow Serving runs it, or a function."""
    import tensorflow as tf

    try:
        import tensorflow_text  # noqa: F401  (registers its ops)
    except ImportError:
        pass
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1))
    with graph.as_default():
        meta = tf.compat.v1.saved_model.load(session, list(tags), model)
    if entry not in meta.signature_def:
        session.close()
        return _function_runner(tf, model, tags, entry)
    signature = meta.signature_def[entry]
    feeds = {name: tensor for key, info in signature.inputs.items() for name, tensor in _tensors(key, info)}
    fetches = {name: tensor for key, info in signature.outputs.items() for name, tensor in _tensors(key, info)}

    def run(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        fed = {feeds[name]: array for name, array in arrays.items()}
        return {name: _array(value) for name, value in session.run(fetches, fed).items()}

    return run


def _tensors(key: str, info: Any) -> list[tuple[str, str]]:
    """The tensors of one signature entry: itself, or the components of a sparse or composite one."""
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        sparse = info.coo_sparse
        return [
            (f"{key}/indices", sparse.indices_tensor_name),
            (f"{key}/values", sparse.values_tensor_name),
            (f"{key}/dense_shape", sparse.dense_shape_tensor_name),
        ]
    if kind == "composite_tensor":
        return [(f"{key}/{i}", part.name) for i, part in enumerate(info.composite_tensor.components)]
    return [(key, info.name)]


def _function_runner(tf: Any, model: str, tags: tuple[str, ...], entry: str) -> Any:
    """A restored function by its dotted path and the number of its trace: `query_model.__call__`, `tokenize#1`."""
    path, _, trace = entry.partition("#")
    function = loaded = tf.saved_model.load(model, tags=list(tags) or None)
    for part in path.split("."):
        function = getattr(function, part) if part != "__call__" else function.__call__
    concrete = function.concrete_functions[int(trace or 0)]
    specs = tf.nest.flatten(concrete.structured_input_signature, expand_composites=True)
    specs = [spec for spec in specs if isinstance(spec, tf.TensorSpec)]

    def run(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        assert loaded is not None  # the concrete function does not keep its captures alive
        tensors = [tf.constant(array, spec.dtype) for array, spec in zip(arrays.values(), specs, strict=True)]
        results = tf.nest.flatten(concrete._call_flat(tensors, concrete.captured_inputs), expand_composites=True)
        return {str(i): _array(value.numpy()) for i, value in enumerate(results)}

    return run


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, bytes):
        array = np.empty((), object)
        array[()] = value
        return array
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


if __name__ == "__main__":
    serve()
