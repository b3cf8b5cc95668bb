"""TensorFlow's own answers, from a process of its own (`porting/parity/tensorflow_process.py`).

    with Oracle() as oracle:
        answers = oracle.run("query_model", ("serve",), "serving_default", [{"user": array}, ...])

The process is started once and answers many questions: one JSON request a line, one JSON answer a line; arrays travel in files.
"""

from __future__ import annotations

import contextlib
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

from porting.errors import PortingError
from porting.flat_graph.subgraph import Cut
from torch_towers.formats.npz import load_arrays, save_arrays

Arrays = Mapping[str, np.ndarray[Any, Any]]
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_USE_LEGACY_KERAS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def tensorflow_installed() -> bool:
    """Whether a process of its own could import TensorFlow."""
    return importlib.util.find_spec("tensorflow") is not None


class OracleError(PortingError):
    """TensorFlow cannot answer: it does not load the SavedModel, or its process ended."""


class Oracle:
    """A running TensorFlow process. Use it in a `with` statement. `onednn`: with oneDNN, as pip installs it on x86."""

    def __init__(self, *, onednn: bool = True) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="torch-towers-oracle-")
        self._log = open(Path(self._folder.name) / "log", "w+b")  # noqa: SIM115  closed in __exit__
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "porting.parity.tensorflow_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env={**os.environ, **_ENVIRONMENT, "TF_ENABLE_ONEDNN_OPTS": str(int(onednn)), "PYTHONPATH": path},
        )  # fmt: skip
        self._requests = 0
        self._onednn = onednn
        self._other: Oracle | None = None
        self.version = ""  # TensorFlow's, once it has answered

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._other is not None:
            self._other.__exit__(*exception)
        self._process.kill()  # all that was asked is answered, and to take TensorFlow down in good order takes seconds
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it was asked last may be unsent
            self._process.stdin.close()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def without_onednn(self) -> Oracle | None:
        """TensorFlow without oneDNN, in a process that ends with this one; None where this one has none."""
        if self._onednn and self._other is None:
            self._other = Oracle(onednn=False)
        return self._other

    def run(
        self, model: str | os.PathLike[str], tags: Sequence[str], entry: str, batches: Sequence[Arrays]
    ) -> list[Any]:
        """TensorFlow's outputs for each batch, by name; where TensorFlow refused the batch, its message (a str) instead.

        `batches` are keyed by the names of `SavedModel.graph(entry).inputs`. Errors: `OracleError` where TensorFlow cannot
        load the model at all.
        """
        return self._ask(_where(model, tags, entry), batches)

    def values(
        self, model: str | os.PathLike[str], tags: Sequence[str], entry: str, batch: Arrays, cut: Cut | None = None
    ) -> Arrays:
        """The results of every node of the entry's flat graph, as TensorFlow's kernels compute them: `name`, `name:1`, ...

        The graph, or the part of it that `cut` is, runs op by op; it ends at the first node that TensorFlow refuses.
        """
        (found,) = self._ask({**_where(model, tags, entry), **_what(cut or Cut()), "runs": "nodes"}, [batch])
        return {} if isinstance(found, str) else found

    def run_cut(
        self, model: str | os.PathLike[str], tags: Sequence[str], entry: str, cut: Cut, batches: Sequence[Arrays]
    ) -> list[Any]:
        """TensorFlow's outputs of a part of the entry's graph for each batch; where TensorFlow refused it, its message.

        The part runs as a graph of its own, optimized as the whole is: what stands outside of it need not exist in this TensorFlow.
        """
        return self._ask({**_where(model, tags, entry), **_what(cut), "runs": "part"}, batches)

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
            raise OracleError(f"TensorFlow's process ended without an answer: {self._last_words()}")
        answer = json.loads(reply)
        if "error" in answer:
            raise OracleError(f"TensorFlow could not run {request['model']} ({request['entry']}): {answer['error']}")
        self.version = answer["version"]
        arrays = load_arrays(answered)
        return [
            error if error is not None else of_batch(arrays, i) for i, error in enumerate(answer["errors"])
        ]  # fmt: skip

    def _last_words(self) -> str:
        self._log.flush()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


def _where(model: str | os.PathLike[str], tags: Sequence[str], entry: str) -> dict[str, Any]:
    return {"model": os.fspath(Path(model).resolve()), "tags": list(tags), "entry": entry}


def _what(cut: Cut) -> dict[str, Any]:
    return {
        "feeds": {ref: [spec.name, spec.dtype] for ref, spec in cut.feeds.items()},
        "fetches": dict(cut.fetches),
        "without_dropout": cut.without_dropout,
        "openings": list(cut.openings),
    }


def of_batch(arrays: Arrays, index: int) -> dict[str, np.ndarray[Any, Any]]:
    prefix = f"{index}|"
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
