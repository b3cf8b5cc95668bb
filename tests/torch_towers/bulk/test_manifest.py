"""What a job wrote, by name and hash: damage, other people's files, parts that are its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.torch_towers.bulk.jobs import job, rows, write
from torch_towers.bulk import BulkError, Output, run


def test_damage_is_seen_when_a_job_is_resumed(checkpoint: Path, tmp_path: Path) -> None:
    this = job(checkpoint, write(tmp_path / "i.parquet", rows(30)), tmp_path / "out")
    run(this)
    manifest = tmp_path / "out.job" / "manifest.jsonl"
    whole = manifest.read_bytes()
    part = tmp_path / "out" / "part-00000-000001.parquet"
    data = bytearray(part.read_bytes())
    data[20] ^= 1
    part.write_bytes(data)
    with pytest.raises(BulkError, match="has changed since it was written"):
        run(this)
    data[20] ^= 1
    part.write_bytes(data)
    manifest.write_bytes(whole[:-5])  # the last line was cut off
    assert run(this).new_rows == 0 and manifest.read_bytes() == whole
    manifest.write_bytes(whole.replace(b'"part"', b'"prt"', 1).replace(b"[0,0]", b"[0", 1))
    with pytest.raises(BulkError, match="is damaged"):
        run(this)


def test_folders_of_others_are_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    this = job(checkpoint, write(tmp_path / "i.parquet", rows(5)), tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(BulkError, match=r"holds 'notes\.txt', which is not from this job"):
        run(this)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("format, name", [
    ("parquet", "out/part-00000-5b6e.snappy.parquet"), ("parquet", "out/part-00000-000000.parquet"), ("npy", "out/embeddings.npy"),
    ("parquet", "out.job/part-00000-000000.parquet"), ("parquet", "out.job/notes.txt"),
])  # fmt: skip
def test_where_no_job_was_begun_any_file_is_somebodys(checkpoint: Path, tmp_path: Path, format: str, name: str) -> None:
    """Spark's files are called part-...; an embeddings.npy may be of another program."""
    this = job(checkpoint, write(tmp_path / "i.parquet", rows(5)), tmp_path / "out", output=Output(format))
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("mine")
    for _ in range(2):
        with pytest.raises(BulkError, match=re.escape(f"holds {Path(name).name!r}, which is not from this job")):
            run(this)
        assert (tmp_path / name).read_text() == "mine"


def test_a_job_that_goes_on_removes_its_own_parts_only(checkpoint: Path, tmp_path: Path) -> None:
    this = job(checkpoint, write(tmp_path / "i.parquet", rows(30)), tmp_path / "out", batch_size=10, rows_per_part=10)
    run(this)
    manifest = this.work / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().splitlines(keepends=True)[0])  # killed before it listed what it had made
    mine = tmp_path / "out" / "part-of-my-thesis.txt"
    mine.write_text("mine")
    with pytest.raises(BulkError, match=r"holds 'part-of-my-thesis\.txt'"):
        run(this)
    assert mine.read_text() == "mine"
    mine.unlink()
    assert run(this).new_rows == 30


@pytest.mark.parametrize(
    "text", ["[]\n", "null\n", "[" * 100_000 + "\n", '{"torch_towers bulk": 1}\n', "mine\nnot whole"]
)
def test_a_manifest_that_is_none_is_left_as_it_is(checkpoint: Path, tmp_path: Path, text: str) -> None:
    this = job(checkpoint, write(tmp_path / "i.parquet", rows(5)), tmp_path / "out")
    this.work.mkdir()
    (this.work / "manifest.jsonl").write_text(text)
    with pytest.raises(BulkError, match=r"is damaged|is from another version"):
        run(this)
    assert (this.work / "manifest.jsonl").read_text() == text
