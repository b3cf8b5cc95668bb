"""Columns as a file spells them; rows whose values cannot be read are set aside by number and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.torch_towers.bulk.jobs import VERTEX, expected, files_of, job, near, result, rows, write
from torch_towers.bulk import BulkError, run


def test_lists_of_one_are_their_values(checkpoint: Path, tmp_path: Path) -> None:
    """As a whole column, and where one row of the column differs: ids, features and restricts."""
    table = rows(9)
    listed = [{name: [value] for name, value in row.items()} for row in table]
    mixed = [dict(row) for row in listed]
    mixed[4] = {**table[4], "word": [[table[4]["word"]]]}
    found: list[dict[str, bytes]] = []
    for name, lines in (("plain", table), ("listed", listed), ("mixed", mixed)):
        run(job(checkpoint, write(tmp_path / f"{name}.jsonl", lines), tmp_path / name, output=VERTEX))
        found.append(files_of(tmp_path / name))
    assert found[0] == found[1] == found[2]
    bad = [dict(row) for row in listed]
    bad[2]["word"], bad[3]["size"], bad[5]["sku"], bad[6]["word"] = ["a", "b"], [], [None], [{"b64": "?"}]
    done = run(job(checkpoint, write(tmp_path / "bad.jsonl", bad), tmp_path / "bad", on_error="skip"))
    assert [(row, why) for _, row, why in done.bad] == [
        (2, "feature 'word': it has 2 values; the tower takes one"), (3, "feature 'size': it has 0 values; the tower takes one"),
        (5, "the id (column 'sku') is missing"), (6, "feature 'word': its b64 is not base64"),
    ]  # fmt: skip


def test_bad_rows_of_json(checkpoint: Path, tmp_path: Path) -> None:
    good = rows(12)
    lines = [json.dumps(row) for row in good]
    bad = {
        2: "{", 5: json.dumps({"sku": "x", "word": "a"}), 6: json.dumps({"sku": None, "word": "a", "size": 1}),
        9: json.dumps({"sku": "x", "word": "a", "size": "wide"}), 10: json.dumps({"sku": "x", "word": ["a", "b"], "size": 1}),
        11: '{"sku": "x", "word": "\\ud800", "size": 1}',
    }  # fmt: skip
    for number, line in bad.items():
        lines.insert(number, line)
    path = tmp_path / "i.jsonl"
    path.write_text("\n".join(lines) + "\n\n")
    with pytest.raises(BulkError, match=r"row 2: the line is not JSON: .*--on-error skip"):
        run(job(checkpoint, path, tmp_path / "out"))
    done = run(job(checkpoint, path, tmp_path / "out", on_error="skip"))
    assert [row for _, row, _ in done.bad] == list(bad)
    said = "|".join(why for _, _, why in done.bad)
    for part in ("feature 'size': is missing", "(column 'sku') is missing", "'wide' is not a number", "2 values; the tower takes one", "lone surrogate"):  # fmt: skip
        assert part in said, said
    ids, vectors = result(tmp_path / "out")
    assert ids == [row["sku"] for row in good] and near(vectors, expected(checkpoint, good))


def test_bad_rows_of_csv(checkpoint: Path, tmp_path: Path) -> None:
    good = rows(30)
    lines = [f"{row['sku']},{row['word']},{row['size']}" for row in good]
    bad = {0: "a", 1: "a,b,c,d", 7: "a,b,", 20: "x", 21: "x", 34: "x,y,1_0", 35: "x,y"}
    for number, line in bad.items():
        lines.insert(number, line)
    path = tmp_path / "i.csv"
    path.write_text("sku,word,size\n" + "\n".join(lines) + "\n")
    done = run(job(checkpoint, path, tmp_path / "out", on_error="skip"))
    assert [row for _, row, _ in done.bad] == list(bad)
    assert done.bad[0][2] == "it has 1 values; the header names 3" and "b'' is not a number" in done.bad[2][2]
    ids, vectors = result(tmp_path / "out")
    assert ids == [row["sku"] for row in good] and near(vectors, expected(checkpoint, good))
    with pytest.raises(BulkError, match="row 0: it has 1 values"):
        run(job(checkpoint, path, tmp_path / "out2"))
