"""Which files a job reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torch_towers.bulk.jobs import expected, job, near, result, rows, write
from torch_towers.bulk import BulkError, run


def test_folders_patterns_and_several_files(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(30)
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.parquet", table[:13])
    write(folder / "b.jsonl", table[13:20])
    (folder / "_SUCCESS").touch()
    write(tmp_path / "x1.csv", table[20:25])
    write(tmp_path / "x2.csv", table[25:])
    run(job(checkpoint, [folder, tmp_path / "x*.csv"], tmp_path / "out"))
    ids, vectors = result(tmp_path / "out")
    assert ids == [row["sku"] for row in table] and near(vectors, expected(checkpoint, table))
    with pytest.raises(BulkError, match="several files"):
        run(job(checkpoint, [folder], tmp_path / "out2", id_column=None))
    for bad, said in ((tmp_path / "none.csv", "no such file"), (tmp_path / "out2", "no such"), (checkpoint / "model.safetensors", "unknown file type")):  # fmt: skip
        with pytest.raises(BulkError, match=said):
            job(checkpoint, bad, tmp_path / "out3")


@pytest.mark.parametrize("option", ["input", "output"])
def test_stores_are_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    from torch_towers import cli

    monkeypatch.chdir(tmp_path)
    paths = {"input": str(write(tmp_path / "i.parquet", rows(5))), "output": "out", option: "gs://bucket/x.parquet"}
    command = ["embed", str(checkpoint), "--tower", "candidate", "--input", paths["input"], "--output", paths["output"]]
    assert cli.main(command) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["i.parquet"]
