"""Runs a job from its files to its output, on this machine or on Ray, and resumes it after an interruption."""

from __future__ import annotations

import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.job import Job
from torch_towers.bulk.manifest import Manifest, Part, digest, is_part
from torch_towers.bulk.ray import run_parts
from torch_towers.bulk.read import Bad, column_names, count_rows
from torch_towers.bulk.sources import source
from torch_towers.bulk.worker import Worker, place_of
from torch_towers.bulk.write import writer_of
from torch_towers.checkpoint.folder import check_local
from torch_towers.errors import InputError


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a run: rows embedded by all runs of the job, by this one, skipped rows, seconds of this run."""

    rows: int
    new_rows: int
    bad: list[tuple[str, int, str]]
    seconds: float


def run(
    job: Job,
    *,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    gpus: float = 0.0,
    show_progress: bool = False,
) -> Summary:
    """Embeds all rows of the job that are not embedded yet. Errors: `BulkError`, `CheckpointError`, `InputError`."""
    began = time.monotonic()
    check_local(job.folder)
    worker = Worker(job)
    check_columns(job, worker)
    counts = [count_rows(item) for item in job.sources]
    known = [-(-count // job.rows_per_part) for count in counts if count is not None]
    writer_of(job.output).check(job.output, max(sum(known), len(job.sources)))
    try:
        Path(job.folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise BulkError(f"{job.folder}: is a file, or lies below one: the output is a folder") from error
    with Manifest(job) as manifest:
        before = sum(part.rows for part in manifest.parts.values())
        _check_finished(job, manifest)
        if not manifest.done:
            _clean(job, manifest)
            bar = _Bar(job, manifest, counts, show_progress)
            with bar:
                tasks = (
                    _local(worker, manifest, bar)
                    if engine == "local"
                    else _ray(job, manifest, counts, workers, gpus, bar)
                )
                for file, done in tasks:
                    if isinstance(done, Part):
                        manifest.add(done)
                        _check_files(job, manifest)
                    else:
                        manifest.end_file(file)
            _finish(job, manifest, worker)
        for path in filter(is_part, list(job.work.iterdir())):  # only needed until the job is done
            path.unlink()
        parts = [manifest.parts[key] for key in sorted(manifest.parts)]
        bad = [(job.sources[part.file].path, row, why) for part in parts for row, why in part.bad]
        rows = sum(part.rows for part in parts)
        return Summary(rows, rows - before, bad, time.monotonic() - began)


def check_columns(job: Job, worker: Worker) -> None:
    """Refuses a job whose files lack required columns."""
    unknown = {name for name, _ in job.columns} - worker.specs.keys()
    if unknown:
        raise BulkError(f"the {job.tower} tower has no feature {min(unknown)!r}; it takes {', '.join(worker.specs)}")
    other = "--column FEATURE=COLUMN reads a feature from another column"
    needed = [
        (column, f"the feature {name!r}", other) for name, column in worker.names.items() if name not in worker.tower.defaults
    ]  # fmt: skip
    if job.id_column is not None:
        needed.append((job.id_column, "the id", "--id-column names it; without it ids are row numbers"))
    needed += [(column, "the output", "NAMESPACE=COLUMN reads another column") for column in job.output.columns]
    for item in job.sources:
        names = column_names(item)
        for column, what, hint in needed if names is not None else ():
            if names is not None and column not in names:
                raise BulkError(
                    f"{item.path}: has no column {column!r} for {what}; its columns are {', '.join(names)} ({hint})"
                )
    if job.id_column is None and len(job.sources) > 1:
        raise BulkError("row numbers are not unique over several files: name the id column with --id-column")


def _local(worker: Worker, manifest: Manifest, bar: _Bar) -> Iterable[tuple[int, Part | None]]:
    finished = _numbers(manifest)
    for file, item in enumerate(worker.job.sources):
        if file in manifest.ended:
            continue
        for done in worker.parts(file, finished[file].__contains__, position=bar.at(file), progress=bar.add):
            yield file, done
        if source(Path(item.path)).identity() != item.identity():
            raise BulkError(f"{item.path}: changed while it was read: discard the output")


def _ray(
    job: Job, manifest: Manifest, counts: list[int | None], workers: int, gpus: float, bar: _Bar
) -> Iterable[tuple[int, Part | None]]:
    tasks: list[tuple[int, list[int] | None, list[int]]] = []
    finished = _numbers(manifest)
    for file, count in enumerate(counts):
        if file in manifest.ended:
            continue
        if count is None:  # row numbers are known only after reading
            tasks.append((file, None, sorted(finished[file])))
        else:
            left = sorted(set(range(-(-count // job.rows_per_part))) - finished[file])
            tasks += [(file, [number], []) for number in left]
    for file, done in run_parts(job, tasks, workers, gpus):
        if isinstance(done, Part):
            bar.add(done.rows + len(done.bad))
        yield file, done


def _numbers(manifest: Manifest) -> defaultdict[int, set[int]]:
    """The finished parts of each file."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for file, number in manifest.parts:
        found[file].add(number)
    return found


def _check_files(job: Job, manifest: Manifest) -> None:
    writer_of(job.output).check(job.output, len(manifest.parts))


def _check_finished(job: Job, manifest: Manifest) -> None:
    """Checks that all files in the manifest exist unchanged. Unlisted files are not touched unless they are parts."""
    for part in manifest.parts.values():
        for name, size, found in part.files:
            place = place_of(job, name)
            if manifest.done and place.parent == job.work:
                continue  # only needed until the job was done
            if not place.exists() or place.stat().st_size != size or digest(place) != (size, found):
                raise BulkError(
                    f"{place}: has changed since it was written: remove {job.folder} and {job.work} to start over"
                )
    listed = {name for part in manifest.parts.values() for name, _, _ in part.files}
    joined = writer_of(job.output).joined
    for path in Path(job.folder).iterdir():
        if path.name not in listed | joined and not is_part(path):
            raise BulkError(f"{job.folder}: holds {path.name!r}, which is not from this job: choose another output")


def _clean(job: Job, manifest: Manifest) -> None:
    """Removes leftovers of a killed run: unfinished parts, and parts in place but not listed."""
    listed = {name for part in manifest.parts.values() for name, _, _ in part.files}
    for folder in (Path(job.folder), job.work):
        for path in filter(is_part, list(folder.iterdir())):
            if path.is_dir() and path.suffix == ".partial":
                shutil.rmtree(path)
            elif path.name not in listed:
                path.unlink()


def _finish(job: Job, manifest: Manifest, worker: Worker) -> None:
    keys = [key for key in sorted(manifest.parts) if manifest.parts[key].rows]
    names = [f"part-{file:05d}-{number:06d}" for file, number in keys]
    rows = sum(manifest.parts[key].rows for key in keys)
    parts = [job.work / name for name in names]
    writer_of(job.output).finish(job, parts, rows, worker.dim, worker.id_type)
    manifest.finish()


class _Bar:
    """The progress bar: rows, rows per second, and remaining time, by rows if their number is known, else by bytes."""

    def __init__(self, job: Job, manifest: Manifest, counts: list[int | None], show: bool) -> None:
        self._total = None if None in counts else sum(count or 0 for count in counts)
        self._ends = [0, *accumulate(item.size for item in job.sources)]
        self._seen = 0.0
        done = sum(part.rows + len(part.bad) for part in manifest.parts.values())
        self._bar: Any = None
        if show:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self._total, initial=done, unit=" rows", unit_scale=True, desc="embed", file=sys.stderr
            )

    def add(self, rows: int) -> None:
        if self._bar is None:
            return
        if self._total is None and self._seen > 0:
            self._bar.total = int((self._bar.n + rows) / self._seen)
        self._bar.update(rows)

    def at(self, file: int) -> Callable[[float], None]:
        """A callback for the fraction of one file that has been read."""
        start, end, total = self._ends[file], self._ends[file + 1], max(self._ends[-1], 1)

        def position(share: float) -> None:
            self._seen = (start + share * (end - start)) / total

        return position

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


__all__ = ["Bad", "InputError", "Summary", "run"]
