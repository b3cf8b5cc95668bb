"""The manifest of a resumed bulk job."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from random import Random

from tests.fuzz.harness import fuzz
from tests.fuzz.mutations import of_bytes, of_json
from torch_towers.bulk.job import Job
from torch_towers.bulk.manifest import Manifest, Part, is_unfinished


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """The job's folder; it lives as long as the process."""
    return tempfile.TemporaryDirectory()


def job() -> Job:
    return Job("checkpoint", "0" * 64, "query", (), str(Path(folder().name) / "out"), batch_size=2, rows_per_part=4)


def seeds() -> list[bytes]:
    path = job().work / "manifest.jsonl"
    path.unlink(missing_ok=True)
    with Manifest(job()) as manifest:
        manifest.add(Part(0, 0, 4, [(1, "bad")], [("part-00000-000000.parquet", 10, "ab")]))
        manifest.add(Part(0, 1, 4))
        manifest.end_file(0)
        manifest.finish()
    return [path.read_bytes()]


def mutated(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = of_bytes(lines[at], random) if random.random() < 0.2 else of_json(lines[at], random)
    return b"\n".join(lines)


def attempt(data: bytes) -> None:
    (job().work / "manifest.jsonl").write_bytes(data)
    is_unfinished(Path(job().folder))
    with Manifest(job()) as manifest:
        for part in manifest.parts.values():
            json.dumps(part.to_json())


def test_nothing_else_comes_out() -> None:
    assert not fuzz(__name__)
