"""The manifest: JSON lines for the job, each finished part, each file read to its end, and the end of the job.

A part's line is appended and synced to disk after the part was renamed into place. So after a kill at any moment the
manifest is true: at worst the last line is incomplete, or a part is in place but not listed, and is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch_towers.bulk.errors import BulkError
from torch_towers.bulk.job import Job, work_of
from torch_towers.bulk.read import Bad
from torch_towers.checkpoint.folder import writing

VERSION = 1


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part: its position in the input, its contents, and its files with sizes and checksums."""

    file: int
    number: int
    rows: int
    bad: list[Bad] = field(default_factory=list[Bad])
    files: list[tuple[str, int, str]] = field(default_factory=list[tuple[str, int, str]])

    def to_json(self) -> dict[str, Any]:
        return {"part": [self.file, self.number], "rows": self.rows, "bad": self.bad, "files": self.files}

    @classmethod
    def from_json(cls, data: Any) -> Part:
        bad = [(int(row), str(why)) for row, why in data["bad"]]
        files = [(str(name), int(size), str(digest)) for name, size, digest in data["files"]]
        return cls(int(data["part"][0]), int(data["part"][1]), int(data["rows"]), bad, files)


class Manifest:
    """The manifest of a job, open for one process. `parts`: the finished parts, by file and number."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.path = job.work / "manifest.jsonl"
        self.parts: dict[tuple[int, int], Part] = {}
        self.ended: set[int] = set()  # files read to their end
        self.done = False
        _refuse_foreign(job)
        job.work.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(job.work / "lock")
        try:
            lines, good = self._read()
            if lines:
                self._resume(lines)
                os.truncate(self.path, good)
            self._file = self.path.open("ab")
        except BaseException:
            os.close(self._lock)
            raise
        if not lines:
            self._append({"torch_towers bulk": VERSION, "job": job.identity()})

    def close(self) -> None:
        self._file.close()
        os.close(self._lock)

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, part: Part) -> None:
        self.parts[part.file, part.number] = part
        self._append(part.to_json())

    def end_file(self, file: int) -> None:
        self.ended.add(file)
        self._append({"file": file})

    def finish(self) -> None:
        self.done = True
        self._append({"done": True})

    def _append(self, value: Any) -> None:
        with writing(self.path):
            self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self) -> tuple[list[Any], int]:
        """The complete lines and their size in bytes; a line truncated by a kill is ignored."""
        lines: list[Any] = []
        good = 0
        if not self.path.exists():
            return lines, good
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    lines.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise BulkError(
                        f"{self.path} is damaged: remove {self.job.work} and the output to start over"
                    ) from error
                good += len(line)
        return lines, good

    def _resume(self, lines: list[dict[str, Any]]) -> None:
        try:
            if lines[0].get("torch_towers bulk") != VERSION:
                raise BulkError(
                    f"{self.path} is from another version: finish that job with it, or choose another output"
                )
            self._same(lines[0]["job"])
            for line in lines[1:]:
                if "part" in line:
                    part = Part.from_json(line)
                    self.parts[part.file, part.number] = part
                elif "file" in line:
                    self.ended.add(int(line["file"]))
                elif line.get("done"):
                    self.done = True
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BulkError(f"{self.path} is damaged: remove {self.job.work} and the output to start over") from error

    def _same(self, before: dict[str, Any]) -> None:
        now = self.job.identity()
        for name, value in now.items():
            if before.get(name) != value:
                what = _NAMES.get(name, f"the option {name.replace('_', '-')}")
                raise BulkError(
                    f"{self.job.folder}: {what} differs from the job that was started here: repeat that job's command to resume, "
                    f"or choose another output (or remove {self.job.work} and the output)"
                )


_NAMES = {"checkpoint_sha256": "the checkpoint", "sources": "the input"}


_PART = re.compile(r"part-\d{5}-\d{6}\.([a-z0-9.]+)")


def is_part(path: Path) -> bool:
    """Whether a file or folder is named like a (partial) part of a job: nothing else is ever removed."""
    return _PART.fullmatch(path.name) is not None and path.is_dir() == (path.suffix == ".partial")


def _refuse_foreign(job: Job) -> None:
    """At the start of a job, output and work folder must be empty: other contents are the user's."""
    begun = job.work / "manifest.jsonl"
    if begun.exists() and begun.stat().st_size:
        return
    for folder, ours in ((Path(job.folder), set[str]()), (job.work, {"lock", "manifest.jsonl"})):
        with contextlib.suppress(FileNotFoundError):
            if foreign := sorted(set(os.listdir(folder)) - ours):
                raise BulkError(f"{folder}: holds {foreign[0]!r}, which is not from this job: choose another output")


def is_unfinished(folder: Path) -> bool:
    """Whether the folder is the output of an unfinished job."""
    path = work_of(folder) / "manifest.jsonl"
    return path.is_file() and not path.read_bytes().endswith(b'\n{"done":true}\n')


def digest(path: Path) -> tuple[int, str]:
    """The size and sha256 of a file."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), found


def _locked(path: Path) -> int:
    """An open file lock; the system releases it however the process ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with contextlib.suppress(ImportError):  # no fcntl on Windows
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise BulkError(f"{path.parent}: another process is running this job") from error
    return handle
