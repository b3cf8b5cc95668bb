"""The input files of a job: their kinds, and their identity when a job resumes."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch_towers.bulk.errors import BulkError
from torch_towers.checkpoint.folder import check_local

Kind = Literal["parquet", "csv", "tsv", "jsonl"]
SUFFIXES: dict[str, Kind] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2"}
_VERTEX = re.compile(r"prediction\.results-\d+-of-\d+$")  # files of a Vertex batch prediction have no suffix
_BLOCK, _WHOLE, _SAMPLES = 1 << 20, 64 << 20, 64
MAX_LINE = 16 << 20
MAX_RATIO = 200
"""Limits of one file: bytes per line, and the compression ratio (beyond 64 MB)."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input file."""

    path: str
    kind: Kind
    compression: str | None
    size: int
    digest: str  # of the whole of a small file; of samples and the modification time of a large one
    max_line: int = MAX_LINE
    max_ratio: int = MAX_RATIO

    def identity(self) -> list[Any]:
        """What a resumed job compares; without the folder, which may have moved."""
        return [Path(self.path).name, self.size, self.digest]


def find_sources(inputs: Sequence[str], max_line: int = MAX_LINE, max_ratio: int = MAX_RATIO) -> list[Source]:
    """The files named by `inputs` (files, folders, patterns with `*`); folders are sorted by name. Errors:
    `BulkError`."""
    return [replace(found, max_line=max_line, max_ratio=max_ratio) for found in _found(inputs)]


def _found(inputs: Sequence[str]) -> list[Source]:
    found: list[Source] = []
    for item in inputs:
        path = Path(item)
        check_local(item)
        if path.is_dir():
            inside = sorted(
                p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "_")) and kind_of(p)
            )
            if not inside:
                raise BulkError(f"{item}: the folder holds no file of a known kind ({', '.join(SUFFIXES)})")
            found += [source(p) for p in inside]
        elif path.is_file():
            found.append(source(path))
        else:
            matches = [Path(match) for match in sorted(glob.glob(item)) if Path(match).is_file()]
            if not matches:
                raise BulkError(f"{item}: there is no such file or folder")
            found += [source(p) for p in matches]
    return found


def kind_of(path: Path) -> tuple[Kind, str | None] | None:
    """The kind and compression by the file's name, or None."""
    if _VERTEX.search(path.name):
        return "jsonl", None
    compression = _COMPRESSED.get(path.suffix.lower())
    kind = SUFFIXES.get((path.with_suffix("") if compression else path).suffix.lower())
    return None if kind is None else (kind, compression)


def source(path: Path) -> Source:
    """The source for a file. Errors: `BulkError`."""
    kind = kind_of(path)
    if kind is None:
        raise BulkError(f"{path}: unknown file type; known are {', '.join(SUFFIXES)}, and these with .gz")
    try:
        size, digest = _digest(path)
    except OSError as error:
        raise BulkError(f"{path}: {error.strerror or error}") from error
    return Source(str(path), kind[0], kind[1], size, digest)


def _digest(path: Path) -> tuple[int, str]:
    """Hashes small files whole; large ones by samples and modification time, which catches edits between the
    samples."""
    status = path.stat()
    size, digest = status.st_size, hashlib.sha256()
    with path.open("rb") as file:
        if size <= _WHOLE:
            while data := file.read(_BLOCK):
                digest.update(data)
        else:
            digest.update(str(status.st_mtime_ns).encode())
            for i in range(_SAMPLES):
                file.seek((size - _BLOCK) * i // (_SAMPLES - 1))
                digest.update(file.read(_BLOCK))
    return size, digest.hexdigest()
