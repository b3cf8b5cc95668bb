"""Embeds the rows of input files, part by part. Every engine runs this code, so every engine writes the same bytes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from torch_towers.bulk.ahead import ahead, in_order
from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.features import Problems, feature, shape_of, singles
from torch_towers.bulk.job import Job
from torch_towers.bulk.manifest import Part, digest
from torch_towers.bulk.read import Bad, Block, Wanted, id_type, plain, read_blocks
from torch_towers.bulk.write import writer_of
from torch_towers.checkpoint.folder import sync, writing
from torch_towers.errors import InputError
from torch_towers.graph.graph import TensorSpec
from torch_towers.inputs.values import MISSING
from torch_towers.kernels.threads import stay_on_one_thread
from torch_towers.tower import Tower
from torch_towers.two_tower import load

_MAX_THREADS = 16  # more would wait for the GIL
_BUDGET = 64 << 20  # input bytes in flight
HOPELESS = 64  # if this many rows are all invalid, the command is wrong, not the rows

Embedded = tuple[Any, np.ndarray[Any, Any], dict[str, Any], list[Bad]]
"""The ids, embeddings and further columns of the valid rows, and the invalid rows."""


class Worker:
    """Holds the tower; `parts(file, ...)` embeds one input file."""

    def __init__(self, job: Job, tower: Tower | None = None) -> None:
        self.job = job
        self.tower = tower_of(job) if tower is None else tower
        self.specs = {spec.name: spec for spec in self.tower.inputs}
        names = dict(job.columns)
        self.names = {name: names.get(name, name) for name in self.specs}  # feature -> column
        extra = (*(() if job.id_column is None else (job.id_column,)), *job.output.columns)
        columns = tuple(dict.fromkeys((*self.names.values(), *extra)))
        features = {self.names[name] for name in self.specs if name not in self.tower.defaults}
        self.wanted = Wanted(columns, frozenset(columns) - features, job.tower)
        self.id_type = ids_type(job)
        self.dim = embedding_width(self.tower)

    def parts(
        self,
        file: int,
        finished: Callable[[int], bool],
        only: Sequence[int] | None = None,
        position: Callable[[float], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Part | None]:
        """The unfinished parts of one file (or those in `only`), each yielded once it is in place; finally None if the
        file was read to its end."""  # fmt: skip
        job = self.job
        per_part = job.rows_per_part // job.batch_size
        names = None if only is None else set(only)

        def skip(block: int) -> bool:
            part = block // per_part
            return finished(part) or (names is not None and part not in names)

        source = job.sources[file]
        current: _PartFile | None = None
        blocks = read_blocks(source, self.wanted, job.batch_size, skip, position)
        with closing(self.embedded(blocks)) as embedded:
            for block, found in embedded:
                last = max([*block.numbers[-1:], *(row for row, _ in block.bad[-1:])])
                number = last // job.rows_per_part
                if current is not None and current.number != number:
                    yield current.finish()
                    current = None
                current = current or _PartFile(self, file, number)
                current.add(block, found)
                if progress is not None:
                    progress(len(block) + len(block.bad))
        if current is not None:
            yield current.finish()
        if names is None:
            yield None

    def embedded(self, blocks: Generator[Block]) -> Generator[tuple[Block, Embedded]]:
        """`embed` of each block, in order. One thread reads blocks, and as many as torch has embed them.

        On the CPU every block runs on one thread, so that its bytes do not depend on the number of threads.
        """
        on_cpu = self.tower.device.type == "cpu"
        count = min(torch.get_num_threads(), _MAX_THREADS) if on_cpu else 1
        with ThreadPoolExecutor(count, initializer=stay_on_one_thread if on_cpu else None) as pool:
            yield from in_order(self.embed, ahead(blocks), pool, 2 * count + 1, lambda block: block.size, _BUDGET)

    def embed(self, block: Block) -> Embedded:
        """The ids, embeddings `[n, dim]` and further columns of the valid rows, and the invalid rows."""
        ids, problems = self._ids(block)
        columns: dict[str, Any] = {}
        for name, column in self.names.items():
            if column not in block.columns:
                continue  # it has a default
            values = block.columns[column]
            if (
                name in self.tower.defaults
                and isinstance(values, list)
                and all(v is MISSING for v in cast("list[Any]", values))
            ):
                continue
            columns[name], found = feature(values, self.specs[name], text=block.text)
            problems = {**found, **problems}
        good = [position for position in range(len(block)) if position not in problems]
        vectors, found = self._encode(columns, good, len(block))
        problems |= found
        bad = [(block.numbers[position], why) for position, why in problems.items()]
        kept = [position for position in good if position not in found]
        extras = {
            name: _take(singles(_listed(block.columns.get(name), len(block))), kept) for name in self.job.output.columns
        }
        return _take(ids, kept), vectors, extras, [*bad, *block.bad]

    def _ids(self, block: Block) -> tuple[Any, Problems]:
        if self.job.id_column is None:
            return block.numbers, {}
        column = singles(block.columns[self.job.id_column])
        if isinstance(column, np.ndarray):
            return cast(Any, column).tolist(), {}
        texts = _plain_texts(column) if self.id_type == "string" else None
        if texts is not None:
            return texts, {}
        read = _int_id if self.id_type == "int64" else _text_id
        ids: list[Any] = []
        problems: Problems = {}
        for position, value in enumerate(cast("list[Any]", column)):
            try:
                ids.append(read(value))
            except ValueError as error:
                ids.append(None)
                problems[position] = f"the id (column {self.job.id_column!r}) {error}"
        return ids, problems

    def _encode(self, columns: Mapping[str, Any], rows: list[int], count: int) -> tuple[np.ndarray[Any, Any], Problems]:
        """The embeddings of the rows that the tower accepts, in order, and the problems of the others."""
        vectors: dict[int, np.ndarray[Any, Any]] = {}
        problems: Problems = {}
        for group in self._groups(columns, rows):
            found, wrong = self._try(columns, group, count)
            problems |= wrong
            kept = [row for row in group if row not in wrong]
            if len(kept) == len(rows):
                return found, problems
            vectors.update(zip(kept, found, strict=True))
        kept = [row for row in rows if row in vectors]
        joined = np.stack([vectors[row] for row in kept]) if kept else np.zeros((0, self.dim), np.float32)
        return joined, problems

    def _groups(self, columns: Mapping[str, Any], rows: list[int]) -> list[list[int]]:
        """Groups rows whose lists have equal lengths, since a batch is rectangular."""
        lists = [
            columns[name] for name, spec in self.specs.items() if name in columns and _has_lists(columns[name], spec)
        ]
        if not lists:
            return [rows]
        groups: dict[Any, list[int]] = {}
        for row in rows:
            groups.setdefault(tuple(shape_of(column[row]) for column in lists), []).append(row)
        return list(groups.values())

    def _try(self, columns: Mapping[str, Any], rows: list[int], count: int) -> tuple[np.ndarray[Any, Any], Problems]:
        if not rows:
            return np.zeros((0, self.dim), np.float32), {}
        try:
            return self._run(columns, rows, count), {}
        except InputError:
            problems = self._blamed(columns, rows, count)
        kept = [row for row in rows if row not in problems]
        return (self._run(columns, kept, count) if kept else np.zeros((0, self.dim), np.float32)), problems

    def _blamed(self, columns: Mapping[str, Any], rows: list[int], count: int) -> Problems:
        """Finds the failing rows by bisection; each is run alone before it is reported."""
        try:
            self._run(columns, rows, count)
            return {}
        except InputError as error:
            if len(rows) == 1:
                return {rows[0]: str(error).replace(", row 0:", ":").removeprefix("row 0: ")}
        middle = len(rows) // 2
        return {**self._blamed(columns, rows[:middle], count), **self._blamed(columns, rows[middle:], count)}

    def _run(self, columns: Mapping[str, Any], rows: list[int], count: int) -> np.ndarray[Any, Any]:
        whole = len(rows) == count
        inputs = {name: column if whole else _take(column, rows) for name, column in columns.items()}
        found = self.tower.encode(
            inputs, batch_size=self.job.batch_size, convert_to_numpy=True, normalize_embeddings=self.job.normalize
        )
        if len(found) != len(rows):
            raise InputError(
                f"the tower gives {len(found)} embeddings for {len(rows)} rows: its rows are not independent"
            )
        return np.asarray(found, np.float32)


class _PartFile:
    """A part that is being written."""

    def __init__(self, worker: Worker, file: int, number: int) -> None:
        self._worker, self.file, self.number = worker, file, number
        self.name = f"part-{file:05d}-{number:06d}"
        self._folder = worker.job.work / f"{self.name}.{secrets.token_hex(4)}.partial"
        self._folder.mkdir(parents=True)
        self._writer = writer_of(worker.job.output)(worker.job, self._folder, self.name, worker.dim, worker.id_type)
        self._rows = 0
        self._bad: list[Bad] = []

    def add(self, block: Block, embedded: Embedded) -> None:
        job = self._worker.job
        ids, vectors, extras, bad = embedded
        with writing(self._folder / self.name):
            refused = self._writer.add(ids, vectors, extras) if len(ids) else {}
        if refused:
            left_out = {row for row, _ in bad}
            numbers = [row for row in block.numbers if row not in left_out]
            bad += [(numbers[position], why) for position, why in refused.items()]
        bad.sort()
        path = job.sources[self.file].path
        if bad and job.on_error == "fail":
            raise BulkError(
                f"{path}, row {bad[0][0]}: {bad[0][1]} (rows count from 0; --on-error skip skips such rows)"
            )
        if len(bad) == len(block) + len(block.bad) >= HOPELESS:
            raise BulkError(
                f"{path}: all of rows {bad[0][0]} to {bad[-1][0]} are invalid: row {bad[0][0]}: {bad[0][1]}"
            )
        self._bad += [(row, why[:500]) for row, why in bad]
        self._rows += len(ids) - len(refused)

    def finish(self) -> Part:
        """Syncs the files and renames them into place."""
        job = self._worker.job
        with writing(self._folder / self.name):
            paths = self._writer.close()
        listed: list[tuple[str, int, str]] = []
        for path in paths:
            place = place_of(job, path.name)
            if self._rows:
                sync(path)
                size, found = digest(path)
                os.replace(path, place)
                listed.append((path.name, size, found))
            else:
                path.unlink()
        self._folder.rmdir()
        sync(Path(job.folder))
        sync(job.work)
        return Part(self.file, self.number, self._rows, self._bad, listed)


def place_of(job: Job, name: str) -> Path:
    """The path of a finished file: results are in the output, files that only the job needs beside it."""
    return (Path(job.folder) if writer_of(job.output).is_result(name) else job.work) / name


def tower_of(job: Job) -> Tower:
    """Loads the tower of a job. Errors: `CheckpointError`."""
    towers = load(job.checkpoint, device=job.device, dtype=job.dtype)
    found = towers.query if job.tower == "query" else towers.candidate
    if found is None:
        raise BulkError(f"{job.checkpoint}: has no {job.tower} tower")
    return found


def embedding_width(tower: Tower) -> int:
    """The number of dimensions of the embedding. Errors: `InputError` if the signature does not state it."""
    spec = next(spec for spec in tower.outputs if spec.name == tower.embedding)
    width = spec.shape[-1] if spec.shape else None
    if not isinstance(width, int) or spec.shape is None or len(spec.shape) != 2:
        raise InputError(
            f"the signature does not state the width of the embedding {spec.name!r}: its shape is {spec.shape}"
        )
    return width


def ids_type(job: Job) -> str:
    """ "int64" or "string", for all files of the job."""
    if job.id_column is None:
        return "int64"
    kinds = {id_type(source, job.id_column) for source in job.sources}
    return "int64" if kinds == {"int64"} else "string"


def _has_lists(column: Any, spec: TensorSpec) -> bool:
    return isinstance(column, list) and (spec.shape is None or len(spec.shape) > 1)


def _take(values: Any, rows: list[int]) -> Any:
    if isinstance(values, np.ndarray):
        return cast(Any, values)[rows]
    return values if len(rows) == len(values) else [values[row] for row in rows]


def _listed(column: Any, count: int) -> list[Any]:
    """A column as a list of Python values; empty for a column that a file lacks."""
    if column is None:
        return [None] * count
    return cast("list[Any]", column.tolist()) if isinstance(column, np.ndarray) else column


def _plain_texts(values: list[Any]) -> list[str] | None:
    """The ids if all are text that UTF-8 can encode, the common case; else None."""
    kinds = set(map(type, values))
    try:
        if kinds == {bytes}:
            return list(map(bytes.decode, values))
        if kinds == {str}:
            "".join(values).encode()
            return values
    except UnicodeError:
        pass
    return None


def _text_id(value: Any) -> str:
    value = plain(value) if isinstance(value, dict) else value
    while isinstance(value, list) and len(cast("list[Any]", value)) == 1:  # Vertex writes every value as a list
        value = cast("list[Any]", value)[0]
    if value is MISSING or value is None:
        raise ValueError("is missing")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError("is not UTF-8") from error
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(cast(int, value))
    if not isinstance(value, str):
        raise ValueError(f"is {type(cast(Any, value)).__name__}, neither text nor an integer")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not UTF-8") from error
    return value


def _int_id(value: Any) -> int:
    if value is None:
        raise ValueError("is missing")
    return int(value)
