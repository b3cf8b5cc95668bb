"""TensorFlow's answers, from a separate process (`porting/parity/tensorflow_process.py`).

    with Oracle() as oracle:
        answers = oracle.run("query_model", ("serve",), "serving_default", [{"user": array}, ...])

The process is started once for many queries: one JSON request per line, one JSON answer per line; arrays are passed in
files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from porting.errors import PortingError
from porting.flat_graph.subgraph import Cut
from porting.parity.process import LIMITS, Limits, TensorFlowProcess
from torch_towers.formats.npz import load_arrays, save_arrays

Arrays = Mapping[str, np.ndarray[Any, Any]]


class OracleError(PortingError):
    """TensorFlow cannot answer: it cannot load the SavedModel, or its process ended."""


class Oracle:
    """A client of TensorFlow's process. Use it in a `with` statement, which ends everything that it started.

    `process` is an already running process, with or without oneDNN, owned by the caller; otherwise one is started.
    `onednn`: with oneDNN, as pip installs it on x86. `limits`: what the process may take.
    """

    def __init__(
        self, *, onednn: bool = True, limits: Limits = LIMITS, process: TensorFlowProcess | None = None
    ) -> None:
        self._started = contextlib.ExitStack()
        self._process = process or self._started.enter_context(TensorFlowProcess(onednn=onednn, limits=limits))
        self._requests = 0
        self._other: Oracle | None = None
        self.version = ""  # TensorFlow's, after the first answer

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *exception: object) -> None:
        self._started.close()

    def without_onednn(self) -> Oracle | None:
        """TensorFlow without oneDNN, in a process that ends with this one; None if this one has no oneDNN."""
        if self._process.onednn and self._other is None:
            self._other = self._started.enter_context(Oracle(onednn=False, limits=self._process.limits))
        return self._other

    def run(
        self, model: str | os.PathLike[str], tags: Sequence[str], entry: str, batches: Sequence[Arrays]
    ) -> list[Any]:
        """TensorFlow's outputs for each batch, by name; for a refused batch, its message (a str) instead.

        `batches` are keyed by the names of `SavedModel.graph(entry).inputs`. Errors: `OracleError` if TensorFlow cannot
        load the model at all.
        """
        return self._ask(_where(model, tags, entry), batches)

    def values(
        self, model: str | os.PathLike[str], tags: Sequence[str], entry: str, batch: Arrays, cut: Cut | None = None
    ) -> Arrays:
        """The results of every node of the entry's flat graph by TensorFlow's kernels: `name`, `name:1`, ...

        The graph, or its subgraph `cut`, runs op by op and stops at the first node that TensorFlow refuses.
        """
        (found,) = self._ask({**_where(model, tags, entry), **_what(cut or Cut()), "runs": "nodes"}, [batch])
        return {} if isinstance(found, str) else found

    def run_cut(
        self, model: str | os.PathLike[str], tags: Sequence[str], entry: str, cut: Cut, batches: Sequence[Arrays]
    ) -> list[Any]:
        """TensorFlow's outputs of a subgraph of the entry for each batch; for a refused batch, its message.

        The subgraph runs as a graph of its own, optimized like the whole: ops outside of it need not exist in this
        TensorFlow.
        """
        return self._ask({**_where(model, tags, entry), **_what(cut), "runs": "part"}, batches)

    def _ask(self, request: dict[str, Any], batches: Sequence[Arrays]) -> list[Any]:
        self._requests += 1
        asked = self._process.folder / f"{self._requests}-inputs.npz"
        answered = self._process.folder / f"{self._requests}-outputs.npz"
        save_arrays(asked, {f"{i}|{name}": array for i, batch in enumerate(batches) for name, array in batch.items()})
        line = json.dumps({**request, "inputs": str(asked), "outputs": str(answered), "count": len(batches)})
        reply = self._process.ask(line)
        if not reply:
            raise OracleError(self._process.why_ended())
        answer = json.loads(reply)
        if "error" in answer:
            raise OracleError(f"TensorFlow could not run {request['model']} ({request['entry']}): {answer['error']}")
        self.version = answer["version"]
        arrays = load_arrays(answered)
        return [
            error if error is not None else of_batch(arrays, i) for i, error in enumerate(answer["errors"])
        ]  # fmt: skip


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
