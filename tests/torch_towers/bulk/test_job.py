"""What a job is: its ids, and what must be the same when it is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.torch_towers.bulk.jobs import job, result, rows, write
from tests.torch_towers.towers import DIM
from torch_towers.bulk import BulkError, Output, run

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


def test_row_numbers_and_integers_as_ids(checkpoint: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", rows(9))
    run(job(checkpoint, path, tmp_path / "out", id_column=None))
    assert result(tmp_path / "out")[0] == list(range(9))
    assert pq.read_schema(tmp_path / "out" / "part-00000-000000.parquet") == pa.schema(
        [("id", pa.int64()), ("embedding", pa.list_(pa.float32(), DIM))]
    )
    run(job(checkpoint, path, tmp_path / "out2", id_column="n"))
    assert result(tmp_path / "out2")[0] == list(range(9))
    with pytest.raises(BulkError, match="'size' holds double; ids are integers or text"):
        run(job(checkpoint, path, tmp_path / "out3", id_column="size"))


def test_what_is_resumed_must_be_the_same_job(checkpoint: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", rows(30))
    first = job(checkpoint, path, tmp_path / "out")
    run(first)
    for change, said in (
        ({"checkpoint_sha256": "0" * 64}, "the checkpoint differs from the job"),
        ({"batch_size": 6}, "the option batch-size"),
        ({"normalize": True}, "the option normalize"),
        ({"output": Output("npy")}, "the option output"),
    ):
        with pytest.raises(BulkError, match=said):
            run(replace(first, **change))  # type: ignore[arg-type]
    write(path, rows(30, seed=1))
    with pytest.raises(BulkError, match="the input differs from the job"):
        run(job(checkpoint, path, tmp_path / "out"))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    write(moved / "i.parquet", rows(30))
    assert run(job(checkpoint, moved / "i.parquet", tmp_path / "out")).new_rows == 0
