"""Every kind of file as blocks of rows, and what is no such file."""

from __future__ import annotations

import contextlib
import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from tests.torch_towers.bulk.jobs import expected, job, near, result, rows, write
from torch_towers import load
from torch_towers.bulk import BulkError, run
from torch_towers.bulk.read import Wanted, instance, read_blocks
from torch_towers.bulk.sources import find_sources


@pytest.mark.parametrize("name", ["i.parquet", "i.csv", "i.tsv", "i.jsonl", "i.csv.gz", "i.jsonl.gz"])
def test_every_kind_of_file(checkpoint: Path, tmp_path: Path, name: str) -> None:
    table = rows(50)
    done = run(job(checkpoint, write(tmp_path / name, table), tmp_path / "out"))
    ids, vectors = result(tmp_path / "out")
    assert ids == [row["sku"] for row in table] and near(vectors, expected(checkpoint, table))
    assert (done.rows, done.new_rows, done.bad) == (50, 50, [])
    assert len(list((tmp_path / "out").iterdir())) == 5
    again = run(job(checkpoint, tmp_path / name, tmp_path / "out"))
    assert (again.rows, again.new_rows) == (50, 0)


@pytest.mark.parametrize("group", [1, 3, 7, 64])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_blocks_do_not_depend_on_row_groups(tmp_path: Path, group: int, size: int) -> None:
    path = write(tmp_path / "i.parquet", rows(23), row_group_size=group)
    (source,) = find_sources([str(path)])
    wanted = Wanted(("n",), frozenset(), "candidate")
    blocks = list(read_blocks(source, wanted, size, lambda index: False))
    assert [block.numbers for block in blocks] == [list(range(i, min(i + size, 23))) for i in range(0, 23, size)]
    assert all(list(block.columns["n"]) == block.numbers for block in blocks)
    for skipped in range(len(blocks)):
        left = list(read_blocks(source, wanted, size, lambda index, skipped=skipped: index <= skipped))
        assert [list(block.columns["n"]) for block in left] == [block.numbers for block in blocks[skipped + 1 :]]
        left = list(read_blocks(source, wanted, size, lambda index, skipped=skipped: index != skipped))
        assert [list(block.columns["n"]) for block in left] == [blocks[skipped].numbers]


@pytest.mark.parametrize(
    "line, said",
    [
        ({"key": "1", "prediction": [1]}, "no instance"),
        ({"query": {"word": "a"}}, "the pair has no 'candidate'"),
        ([1, 2], "not an object with the features 'word', 'size'"),
        ({"data": "[1]", "key": "k"}, "'data' is not a JSON object"),
        ({"data": "{", "key": "k"}, "Expecting"),
    ],
)
def test_lines_that_are_not_rows(line: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        instance(line, Wanted(("word", "size"), frozenset(), "candidate"))


def test_text_in_csv(checkpoint: Path, tmp_path: Path) -> None:
    """Quotes, line breaks inside quotes, bytes that are not UTF-8, the same word in both cases."""
    (tmp_path / "i.csv").write_bytes(b'sku,word,size\na,"new\nline",1\nb,\xff\xfe,1e0\n"c,""d""",back\\slash,1\n')
    run(job(checkpoint, tmp_path / "i.csv", tmp_path / "out"))
    ids, vectors = result(tmp_path / "out")
    words = [b"new\nline", b"\xff\xfe", b"back\\slash"]
    assert ids == ["a", "b", 'c,"d"']
    assert near(vectors, load(checkpoint).encode_candidate({"word": words, "size": [1.0] * 3}).numpy())


@pytest.mark.parametrize("name", ["i.parquet", "i.csv", "i.jsonl", "i.csv.gz"])
def test_damaged_files(checkpoint: Path, tmp_path: Path, name: str) -> None:
    whole = write(tmp_path / name, rows(300)).read_bytes()
    for seed in range(12):
        choose = random.Random(seed)
        data = bytearray(whole[: choose.randrange(len(whole))] if seed % 2 else whole)
        for _ in range(20):
            if data:
                data[choose.randrange(len(data))] = choose.randrange(256)
        (tmp_path / name).write_bytes(data)
        folder = tmp_path / f"out{seed}"
        with contextlib.suppress(BulkError):  # what can be read is embedded or named; nothing else is raised
            run(job(checkpoint, tmp_path / name, folder, on_error="skip", batch_size=128, rows_per_part=128))


def test_an_empty_file(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("i.jsonl", "i.csv"):
        (tmp_path / name).touch()
    assert run(job(checkpoint, tmp_path / "i.jsonl", tmp_path / "out")).rows == 0
    with pytest.raises(BulkError, match="is empty: the first line must name the columns"):
        run(job(checkpoint, tmp_path / "i.csv", tmp_path / "out2"))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_line_without_end(tmp_path: Path, suffix: str) -> None:
    from torch_towers.bulk.read import column_names

    path = tmp_path / f"i.{suffix}.gz"
    path.write_bytes(gzip.compress(b"a" * 100_000))
    with pytest.raises(BulkError, match=r"a line is longer than 1000 bytes: .* --max-line-bytes raises the limit"):
        column_names(find_sources([str(path)], max_line=1000)[0])


def test_what_unfolds_to_more_than_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_towers.bulk.read import Wanted, read_blocks

    def count(max_ratio: int) -> int:
        wanted = Wanted(("a",), frozenset(), "query")
        blocks = read_blocks(find_sources([str(path)], max_ratio=max_ratio)[0], wanted, 1000, lambda _: False)
        return sum(map(len, blocks))

    monkeypatch.setattr("torch_towers.bulk.read._FREE", 1000)
    path = tmp_path / "i.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" * 100_000))
    with pytest.raises(
        BulkError, match=rf"{path}: decompresses to over .* more than 20 times its size: .* --max-ratio"
    ):
        count(20)
    assert count(2000) == 99_999
