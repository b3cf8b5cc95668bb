"""The output of a job as a table of candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torch_towers.bulk.jobs import job, rows, write
from torch_towers import load
from torch_towers.bulk import BulkError, run


def test_an_unfinished_output_is_not_searched(checkpoint: Path, tmp_path: Path) -> None:
    from torch_towers.bulk.table import read_candidates

    this = job(checkpoint, write(tmp_path / "i.parquet", rows(30)), tmp_path / "out")
    run(this)
    towers = load(checkpoint)
    assert sum(len(ids) for _, ids in read_candidates(towers, [str(tmp_path / "out")])) == 30
    manifest = tmp_path / "out.job" / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(BulkError, match="is not finished"):
        read_candidates(towers, [str(tmp_path / "out")])
