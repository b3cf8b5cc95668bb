"""Ray: `Embedder`, a callable class for `map_batches`, and the engine of `torch-towers embed --engine ray`.

`Embedder` does not import Ray, and works for Spark too (`mapInPandas`, `mapInArrow`, batch by batch):

    ds = ray.data.read_parquet("gs://bucket/items/")
    ds = ds.map_batches(
        Embedder, fn_constructor_kwargs={"checkpoint": "/models/shop", "tower": "candidate"},
        batch_size=1024, compute=ray.data.ActorPoolStrategy(size=8),
    )
    ds.write_parquet("gs://bucket/embeddings/")
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.job import Job
from torch_towers.bulk.manifest import Part
from torch_towers.bulk.worker import Worker
from torch_towers.errors import InputError, TorchTowersError
from torch_towers.extras import need
from torch_towers.kernels.garbage import set_aside
from torch_towers.two_tower import load


class Embedder:
    """`embedder({column: [n, ...]}) -> the same columns, and "embedding" [n, dim] float32`. Errors: `InputError`.

    `columns` maps features to columns of other names; columns that the tower does not take are passed through. Input
    arrays are not modified: Ray's may be read-only.
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str], tower: Literal["query", "candidate"] = "candidate", *, device: str = "cpu",
        dtype: str | None = None, columns: Mapping[str, str] | None = None, output: str = "embedding", batch_size: int = 1024,
        normalize_embeddings: bool = False,
    ) -> None:  # fmt: skip
        towers = load(checkpoint, device=device, dtype=dtype)
        found = towers.query if tower == "query" else towers.candidate
        if found is None:
            raise InputError(f"{os.fspath(checkpoint)} has no {tower} tower")
        self.tower = found
        self.columns, self.output = dict(columns or {}), output
        self._options: dict[str, Any] = {"batch_size": batch_size, "normalize_embeddings": normalize_embeddings}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        names = {spec.name: self.columns.get(spec.name, spec.name) for spec in self.tower.inputs}
        inputs = {name: _writable(batch[column]) for name, column in names.items() if column in batch}
        vectors = self.tower.encode(inputs, convert_to_numpy=True, **self._options)
        return {**batch, self.output: np.asarray(vectors, np.float32)}


def _writable(column: Any) -> Any:
    """Copies a read-only array, which torch would warn about."""
    if isinstance(column, np.ndarray) and not column.flags.writeable:
        return cast(Any, column).copy()
    return cast(Any, column)


class PartWorker:
    """A Ray actor that computes parts, puts them in place and returns their manifest lines."""

    def __init__(self, job: str) -> None:
        self._worker = Worker(Job.from_json(job))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        with set_aside():
            lines = [line for task in batch["task"] for line in self._lines(str(task))]
        return {"line": np.array(lines, dtype=object)}

    def _lines(self, task: str) -> Iterator[str]:
        file, only, finished = json.loads(task)
        try:
            for part in self._worker.parts(file, set(finished).__contains__, only):
                yield json.dumps([file, None if part is None else part.to_json(), None])
        except TorchTowersError as error:  # returned as a value: Ray would wrap it and retry the task
            yield json.dumps([file, None, str(error)])


Task = tuple[int, "list[int] | None", list[int]]
"""A file, its parts to compute (None: all), and its finished parts."""


def run_parts(job: Job, tasks: Sequence[Task], workers: int, gpus: float) -> Iterator[tuple[int, Part | None]]:
    """Runs tasks on the connected Ray cluster, or a local one, and yields each part once it is in place.

    All machines must see the checkpoint, the inputs and the output under the same paths. Errors: `BulkError`.
    """
    if not tasks:
        return
    ray = need("ray", "ray")
    data = need("ray.data", "ray")
    began = not ray.is_initialized()
    if began:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # the command has its own progress bar
        data.DataContext.get_current().enable_progress_bars = False
    try:
        rows = [{"task": json.dumps(task)} for task in tasks]
        dataset = data.from_items(rows, override_num_blocks=min(len(rows), 1000)).map_batches(
            PartWorker, fn_constructor_kwargs={"job": job.to_json()}, batch_size=1, num_gpus=gpus or None,
            compute=data.ActorPoolStrategy(size=min(workers, len(rows))),
        )  # fmt: skip
        for row in dataset.iter_rows():
            file, part, error = json.loads(row["line"])
            if error is not None:
                raise BulkError(error)
            yield int(file), None if part is None else Part.from_json(part)
    finally:
        if began:
            ray.shutdown()
