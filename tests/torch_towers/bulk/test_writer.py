"""An output format is one class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.torch_towers.bulk.jobs import job, rows
from tests.torch_towers.towers import DIM
from torch_towers.bulk import BulkError, Job, Output, run
from torch_towers.bulk.write import WRITERS
from torch_towers.bulk.writer import Writer


class Lines(Writer):
    """A format of a test's own: one line for each row."""

    def __init__(self, job: Job, folder: Path, name: str, dim: int, id_type: str) -> None:
        self._path = folder / f"{name}.txt"
        self._path.touch()

    def add(self, ids: Any, embeddings: Any, extras: Any) -> dict[int, str]:
        with self._path.open("a") as file:
            file.writelines(f"{name} {len(vector)}\n" for name, vector in zip(ids, embeddings, strict=True))
        return {}

    def close(self) -> list[Path]:
        return [self._path]


def test_a_format_is_one_class_and_its_name(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRITERS, "lines", Lines)  # type: ignore[arg-type]
    items = tmp_path / "items.jsonl"
    items.write_text("\n".join(map(json.dumps, rows(2))))
    done = run(job(checkpoint, items, tmp_path / "out", output=Output("lines")))
    assert done.rows == 2
    assert (tmp_path / "out" / "part-00000-000000.txt").read_text() == f"s0 {DIM}\ns1 {DIM}\n"
    with pytest.raises(BulkError, match="the format must be one of parquet, npy"):
        run(job(checkpoint, items, tmp_path / "other", output=Output("parquett")))
