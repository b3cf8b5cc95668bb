"""Bulk embedding: every kind of input and output, bad rows, kills and resumption."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.torch_towers.budget import within_budget
from tests.torch_towers.towers import DIM, WORDS, id_tower, word_tower
from torch_towers import load
from torch_towers.bulk import BulkError, Job, Output, run
from torch_towers.bulk.ahead import ahead, in_order
from torch_towers.bulk.read import Wanted, instance, read_blocks
from torch_towers.bulk.sources import find_sources
from torch_towers.bulk.vertex import check_output, repeated_id
from torch_towers.bulk.write import WRITERS
from torch_towers.bulk.writer import Writer
from torch_towers.formats.text_lines import from_lines
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.tower import Tower, TowerSpec
from torch_towers.two_tower import TwoTower

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

ROOT = Path(__file__).parents[3]
TEXTS = [word.decode() for word in WORDS if word not in (b"\xff\xfe", b"new\nline")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bulk") / "towers"
    TwoTower(id_tower(), word_tower(1)).save(path)
    return path


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    choose = random.Random(seed)
    return [
        {"sku": f"s{i}", "word": choose.choice([*TEXTS, "other"]), "size": round(choose.uniform(-2, 2), 3), "color": "red", "n": i}
        for i in range(count)
    ]  # fmt: skip


def expected(checkpoint: Path, table: Sequence[dict[str, Any]]) -> Any:
    """Of the words and sizes, all at once: the tower works by rows."""
    found = load(checkpoint).encode_candidate({name: [row[name] for row in table] for name in ("word", "size")})
    return found.numpy()


def near(found: Any, wanted: Any) -> bool:
    """Equal but for rounding: a batch of one row takes another matrix product than a larger one."""
    return found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-6, atol=1e-7)


def write(path: Path, table: Sequence[dict[str, Any]], **options: Any) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(table)), path, **options)
    elif ".jsonl" in path.suffixes:
        data = "".join(json.dumps(row) + "\n" for row in table).encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    else:
        sep, quote = (",", '"') if ".csv" in path.suffixes else ("\t", "")
        lines = [sep.join(table[0])] + [sep.join(f"{quote}{value}{quote}" for value in row.values()) for row in table]
        data = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def job(checkpoint: Path, inputs: Path | Sequence[Path], folder: Path, **options: Any) -> Job:
    given: dict[str, Any] = {"id_column": "sku", "batch_size": 4, "rows_per_part": 12, **options}
    listed = [inputs] if isinstance(inputs, Path) else inputs
    digest = hashlib.sha256((checkpoint / "config.json").read_bytes()).hexdigest()
    sources = tuple(find_sources([str(path) for path in listed]))
    return Job(str(checkpoint), digest, "candidate", sources, str(folder), **given)


def result(folder: Path) -> tuple[list[Any], Any]:
    table = pq.read_table(folder)
    return table["id"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float32).reshape(-1, DIM)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- threads ------------------------------------------------------------------------------------------------------------


def test_ahead_gives_the_same_items_and_keeps_few() -> None:
    made: list[int] = []

    def items(fail: bool = False) -> Generator[int]:
        for i in range(100):
            made.append(i)
            yield i
        if fail:
            raise BulkError("at the end")

    for i, item in enumerate(ahead(items(), 3)):
        assert item == i and len(made) <= i + 1 + 3 + 1
    assert made == list(range(100))
    found: list[int] = []
    with pytest.raises(BulkError, match="at the end"):
        for item in ahead(items(fail=True)):
            found.append(item)
    assert found == list(range(100))


@pytest.mark.parametrize("budget, most_under_way", [(10**9, 5), (0, 1), (25, 3)])
def test_in_order_gives_what_a_loop_gives(budget: int, most_under_way: int) -> None:
    choose, under_way, most = random.Random(0), [0], [0]
    waits = [choose.uniform(0, 0.003) for _ in range(40)]

    def items(fail: bool) -> Generator[int]:
        for i in range(40):
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            yield i
        if fail:
            raise BulkError("at the end")

    def run(i: int) -> int:
        time.sleep(waits[i])
        if i == failing:
            raise BulkError(f"at {i}")
        return i * i

    for failing, said in ((None, None), (None, "at the end"), (17, "at 17")):
        found: list[tuple[int, int]] = []
        under_way[0] = 0
        with ThreadPoolExecutor(3) as pool, pytest.raises(BulkError, match=said) if said else contextlib.nullcontext():
            for pair in in_order(run, items(said == "at the end"), pool, 5, lambda i: 10, budget):
                under_way[0] -= 1
                found.append(pair)
        assert found == [(i, i * i) for i in range(40 if failing is None else failing)]
    assert most[0] == most_under_way


def test_ahead_ends_its_thread_when_it_is_closed() -> None:
    closed: list[str] = []

    def items(name: str) -> Generator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(name)

    def inner() -> Generator[int]:
        with closing(ahead(items("read"))) as read:
            yield from read

    before = threading.active_count()
    with closing(ahead(inner())) as outer:
        assert [next(outer) for _ in range(5)] == list(range(5)) and threading.active_count() == before + 2
    assert closed == ["read"] and threading.active_count() == before


# -- inputs -------------------------------------------------------------------------------------------------------------


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
    for bad, said in ((tmp_path / "none.csv", "no such file"), (tmp_path / "out2", "no such"), (checkpoint / "model.safetensors", "kind is not known")):  # fmt: skip
        with pytest.raises(BulkError, match=said):
            job(checkpoint, bad, tmp_path / "out3")


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


def test_columns_of_other_names(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(5)
    path = write(tmp_path / "i.csv", [{"id": r["sku"], "w": r["word"], "size": r["size"]} for r in table])
    run(job(checkpoint, path, tmp_path / "out", id_column="id", columns=(("word", "w"),)))
    assert near(result(tmp_path / "out")[1], expected(checkpoint, table))
    with pytest.raises(BulkError, match="no column 'word' for the feature 'word'; its columns are id, w, size"):
        run(job(checkpoint, path, tmp_path / "out2", id_column="id"))
    with pytest.raises(BulkError, match="no feature 'x'; it takes word, size"):
        run(job(checkpoint, path, tmp_path / "out2", id_column="id", columns=(("x", "w"),)))
    with pytest.raises(BulkError, match=r"no column 'sku' for the id; .*\(--id-column"):
        run(job(checkpoint, path, tmp_path / "out2", columns=(("word", "w"),)))


def test_vertex_lines(checkpoint: Path, tmp_path: Path) -> None:
    """Pairs, instances, results of a batch prediction: all stand for the same rows."""
    table = rows(8)
    flat = [{"sku": row["sku"], "word": row["word"], "size": row["size"]} for row in table]
    listed = [{"sku": [r["sku"]], "word": [r["word"]], "size": [str(r["size"])], "id_pl": ["x"]} for r in table]
    coded = [{**row, "word": {"b64": base64.b64encode(row["word"].encode()).decode()}} for row in flat]
    shapes = {
        "pairs": [{"query": {"q": ["a"]}, "candidate": row} for row in listed],
        "instances": [{"data": json.dumps(row), "key": row["sku"]} for row in flat],
        "results": [
            {"instance": {"data": json.dumps(r), "key": r["sku"]}, "prediction": {"encoding": [1]}} for r in flat
        ],
        "rows": [{"instance": row, "prediction": [0.5]} for row in flat],
        "bytes": coded,
    }
    for name, lines in shapes.items():
        path = tmp_path / f"{name}.jsonl"
        if name == "results":
            path = tmp_path / "prediction.results-00000-of-00001"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        key = "key" if name in ("instances", "results") else "sku"
        run(job(checkpoint, path, tmp_path / name, id_column=key))
        ids, vectors = result(tmp_path / name)
        assert ids == [row["sku"] for row in table] and near(vectors, expected(checkpoint, table)), name


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


def test_lists_of_different_lengths(tmp_path: Path) -> None:
    """A feature with a list in each row: rows of one length form a batch."""
    inputs = (TensorSpec("x", "float32", ("batch", None)),)
    nodes = (
        Node("s", "reduce_sum", ("x",), {"axes": (1,), "keepdim": True}),
        Node("y", "concat", ("s", "s"), {"axis": 1}),
    )
    graph = Graph(inputs, nodes, {"y": "y"})
    tower = Tower(
        TowerSpec(Graph(inputs, (), {"x": "x"}), graph, None, inputs, (TensorSpec("y", "float32", ("batch", 2)),)), {}
    )
    TwoTower(candidate=tower).save(tmp_path / "c")
    lists = [[1.0], [1.0, 2.0], [], [3.0, 4.0], [5.0], [1.0, 2.0, 3.0]]
    for path in (write(tmp_path / "i.parquet", [{"x": x} for x in lists]), write(tmp_path / "i.jsonl", [{"x": x} for x in lists]),
                 tmp_path / "i.csv"):  # fmt: skip
        if path.suffix == ".csv":
            path.write_text("x\n" + "".join(f'"{json.dumps(x)}"\n' for x in lists))
        out = tmp_path / f"out{path.suffix}"
        run(job(tmp_path / "c", path, out, id_column=None))
        found = pq.read_table(out)["embedding"].to_pylist()
        assert found == [[sum(x)] * 2 for x in lists]


def test_text_in_csv(checkpoint: Path, tmp_path: Path) -> None:
    """Quotes, line breaks inside quotes, bytes that are not UTF-8, the same word in both cases."""
    (tmp_path / "i.csv").write_bytes(b'sku,word,size\na,"new\nline",1\nb,\xff\xfe,1e0\n"c,""d""",back\\slash,1\n')
    run(job(checkpoint, tmp_path / "i.csv", tmp_path / "out"))
    ids, vectors = result(tmp_path / "out")
    words = [b"new\nline", b"\xff\xfe", b"back\\slash"]
    assert ids == ["a", "b", 'c,"d"']
    assert near(vectors, load(checkpoint).encode_candidate({"word": words, "size": [1.0] * 3}).numpy())


# -- bad rows -----------------------------------------------------------------------------------------------------------


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


def test_bad_rows_of_parquet_and_of_the_tower(checkpoint: Path, tmp_path: Path) -> None:
    table: list[dict[str, Any]] = rows(20)
    table[3]["size"], table[8]["word"], table[15]["sku"] = None, None, None
    done = run(job(checkpoint, write(tmp_path / "i.parquet", table), tmp_path / "out", on_error="skip"))
    assert [(row, why) for _, row, why in done.bad] == [
        (3, "feature 'size': the value is null"), (8, "feature 'word': the value is null"), (15, "the id (column 'sku') is missing"),
    ]  # fmt: skip
    kept = [row for i, row in enumerate(table) if i not in (3, 8, 15)]
    assert near(result(tmp_path / "out")[1], expected(checkpoint, kept))
    ids = [{"id": i} for i in (0, 3, 99, 2, -1, 7)]  # the other tower refuses an id that its table lacks
    found = replace(
        job(checkpoint, write(tmp_path / "j.parquet", ids), tmp_path / "out2", id_column=None, on_error="skip"),
        tower="query",
    )
    done = run(found)
    assert [row for _, row, _ in done.bad] == [2, 4] and all(
        "feature 'id'" in why and "row" not in why for _, _, why in done.bad
    )
    assert result(tmp_path / "out2")[0] == [0, 1, 3, 5]


def test_a_command_that_fits_no_row_ends_at_once(checkpoint: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", [{**row, "size": "wide"} for row in rows(200)])
    with pytest.raises(
        BulkError, match="none of the rows 0 to 99 can be used: row 0: feature 'size': 'wide' is not a number"
    ):
        run(job(checkpoint, path, tmp_path / "out", on_error="skip", batch_size=100, rows_per_part=100))


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


# -- outputs ------------------------------------------------------------------------------------------------------------


def test_npy(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(30)
    table[4]["sku"] = "two\nlines"
    path = write(tmp_path / "i.parquet", table)
    run(job(checkpoint, path, tmp_path / "out", output=Output("npy")))
    vectors = np.load(tmp_path / "out" / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    assert vectors.dtype == np.float32 and near(vectors, expected(checkpoint, table))
    assert from_lines((tmp_path / "out" / "ids.txt").read_bytes()) == [row["sku"].encode() for row in table]
    assert sorted(p.name for p in (tmp_path / "out.job").iterdir()) == ["lock", "manifest.jsonl"]
    assert run(job(checkpoint, path, tmp_path / "out", output=Output("npy"))).new_rows == 0
    run(job(checkpoint, path, tmp_path / "out2", output=Output("npy"), id_column="n"))
    assert np.load(tmp_path / "out2" / "ids.npy", allow_pickle=False).tolist() == list(range(30))


VERTEX = Output(
    "vertex-json", restricts=(("color", "color"),), denies=(("shade", "color"),),
    numeric_restricts=(("n", "n", "int"), ("size", "size", "float"), ("wide", "size", "double")), crowding_tag="color",
)  # fmt: skip


def test_vertex_json(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(30)
    table[1]["color"] = None  # no value, no restrict
    run(job(checkpoint, write(tmp_path / "i.parquet", table), tmp_path / "out", output=VERTEX))
    lines = [
        json.loads(line) for path in sorted((tmp_path / "out").iterdir()) for line in path.read_text().splitlines()
    ]
    assert [line["id"] for line in lines] == [row["sku"] for row in table]
    assert near(np.array([line["embedding"] for line in lines], np.float32), expected(checkpoint, table))
    assert {k: v for k, v in lines[0].items() if k not in ("id", "embedding")} == {
        "restricts": [{"namespace": "color", "allow": ["red"]}, {"namespace": "shade", "deny": ["red"]}],
        "numeric_restricts": [
            {"namespace": "n", "value_int": 0}, {"namespace": "size", "value_float": table[0]["size"]},
            {"namespace": "wide", "value_double": table[0]["size"]},
        ],
        "crowding_tag": "red",
    }  # fmt: skip
    assert lines[1].keys() == {"id", "embedding", "numeric_restricts"}
    assert all(path.suffix == ".json" for path in (tmp_path / "out").iterdir())


def test_vertex_csv(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(3)
    table[2]["color"] = "a,b"
    output = replace(VERTEX, format="vertex-csv")
    done = run(job(checkpoint, write(tmp_path / "i.jsonl", table), tmp_path / "out", output=output, on_error="skip"))
    assert [row for _, row, _ in done.bad] == [2] and "holds ','" in done.bad[0][2]
    lines = (tmp_path / "out" / "part-00000-000000.csv").read_text().splitlines()
    first = lines[0].split(",")
    assert len(lines) == 2 and first[0] == "s0" and first[5:] == [
        "crowding_tag=red", "color=red", "shade=!red", "#n=0i", f"#size={table[0]['size']}f", f"#wide={table[0]['size']}d",
    ]  # fmt: skip
    assert near(np.array([first[1:5]], np.float32), expected(checkpoint, table[:1]))


def test_vertex_avro(checkpoint: Path, tmp_path: Path) -> None:
    fastavro = pytest.importorskip("fastavro")
    table = rows(5)
    table[3]["n"] = 2**40
    output = replace(VERTEX, format="vertex-avro")
    path = write(tmp_path / "i.parquet", table)
    done = run(job(checkpoint, path, tmp_path / "out", output=output, on_error="skip"))
    assert [row for _, row, _ in done.bad] == [3]
    with (tmp_path / "out" / "part-00000-000000.avro").open("rb") as file:
        found = list(fastavro.reader(file))
    kept = [*table[:3], table[4]]
    assert near(np.array([r["embedding"] for r in found], np.float32), expected(checkpoint, kept))
    assert [r["id"] for r in found] == ["s0", "s1", "s2", "s4"] and found[0]["sparse_embedding"] is None
    assert found[0]["restricts"][1] == {"namespace": "shade", "allow": None, "deny": ["red"]}
    assert found[0]["numeric_restricts"][0] == {
        "namespace": "n",
        "value_int": 0,
        "value_float": None,
        "value_double": None,
    }
    run(job(checkpoint, path, tmp_path / "out2", output=output, on_error="skip"))
    assert files_of(tmp_path / "out") == files_of(tmp_path / "out2")


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
_rows = st.lists(
    st.fixed_dictionaries({
        "id": _text.filter(bool), "allow": st.none() | _text | st.lists(_text, max_size=3), "deny": st.none() | _text,
        "tag": st.none() | _text, "int": st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
        "float": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
        "double": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    }),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(_rows, st.integers(1, 70))
def test_avro_is_what_fastavro_writes(table: list[dict[str, Any]], dim: int) -> None:
    """The records are put together here for speed: fastavro's writer, given the same rows, writes the same file."""
    write = pytest.importorskip("fastavro.write")
    from torch_towers.bulk import vertex

    output = Output("vertex-avro", (("c", "allow"),), (("c", "deny"), ("d", "deny")),
                    (("i", "int", "int"), ("f", "float", "float"), ("d", "double", "double")), "tag")  # fmt: skip
    embeddings = np.random.default_rng(0).standard_normal((len(table), dim)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "part.avro"
        this = Job("", "", "candidate", (), folder, output=output)
        writer = vertex.VertexWriter(this, Path(folder), "part", dim, "string")
        extras = {name: [row[name] for row in table] for name in output.columns}
        assert writer.add([row["id"] for row in table], embeddings, extras) == {}
        writer.close()
        written = place.read_bytes()
    wanted = io.BytesIO()
    theirs = write.Writer(wanted, vertex._AVRO, sync_interval=1 << 30, sync_marker=vertex._MARKER)
    for row, vector in zip(table, embeddings.tolist(), strict=True):
        allow = [text for text in (row["allow"] if isinstance(row["allow"], list) else [row["allow"]]) if text]
        deny = [row["deny"]] if row["deny"] else []
        restricts = [{"namespace": "c", "allow": allow or None, "deny": deny or None}] if allow or deny else []
        restricts += [{"namespace": "d", "allow": None, "deny": deny}] if deny else []
        numbers = [
            {"namespace": name, **{f"value_{k}": row[k] if k == kind else None for k in ("int", "float", "double")}}
            for name, kind in (("i", "int"), ("f", "float"), ("d", "double")) if row[kind] is not None
        ]  # fmt: skip
        theirs.write({"id": row["id"], "embedding": vector, "sparse_embedding": None, "restricts": restricts or None,
                      "numeric_restricts": numbers or None, "crowding_tag": row["tag"] or None})  # fmt: skip
    theirs.flush()
    assert written == wanted.getvalue()


def test_equal_values_of_other_types_are_other_restricts(checkpoint: Path, tmp_path: Path) -> None:
    """What a category becomes is remembered: 1 and true are equal to Python, and are not one category."""
    table = [{**row, "color": value} for row, value in zip(rows(3), (1, True, 1), strict=True)]
    output = Output("vertex-json", restricts=(("color", "color"),))
    run(job(checkpoint, write(tmp_path / "i.jsonl", table), tmp_path / "out", output=output))
    lines = (tmp_path / "out" / "part-00000-000000.json").read_text().splitlines()
    assert [json.loads(line)["restricts"][0]["allow"] for line in lines] == [["1"], ["true"], ["1"]]


def test_vertex_limits(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(30)
    table[25]["sku"] = "s3"
    with pytest.raises(BulkError, match="the id 's3' stands twice"):
        run(job(checkpoint, write(tmp_path / "i.parquet", table), tmp_path / "out", output=Output("vertex-json")))
    nan = [{**row, "size": float("nan") if i == 2 else 1.0} for i, row in enumerate(rows(5))]
    with pytest.raises(BulkError, match="row 2: the embedding holds NaN or infinity"):
        run(job(checkpoint, write(tmp_path / "j.parquet", nan), tmp_path / "out2", output=Output("vertex-json")))
    with pytest.raises(BulkError, match="5001 files, and Vector Search takes 5000"):
        run(job(checkpoint, write(tmp_path / "k.parquet", rows(5001)), tmp_path / "out3", output=Output("vertex-json"),
                batch_size=1, rows_per_part=1))  # fmt: skip
    with pytest.raises(BulkError, match="given twice"):
        check_output(Output("vertex-json", numeric_restricts=(("a", "a", "int"), ("a", "b", "int"))), 1)
    with pytest.raises(BulkError, match="'a,b' cannot be written"):
        check_output(Output("vertex-csv", restricts=(("a,b", "c"),)), 1)


def test_numbers_that_no_restrict_holds() -> None:
    from torch_towers.bulk.vertex import _value

    largest = float(np.finfo(np.float32).max)
    assert _value(largest, "float", "c") == largest and _value(3.4028235677973362e38, "float", "c") > largest
    for value, kind, said in (
        (3.4028235677973366e38, "float", "not finite"), (float("nan"), "double", "not finite"), (10**400, "int", "more than 64 bits"),
        (10**400, "double", "not a number"), ("1_0", "int", "not an integer"), (1.5, "int", "not an integer"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            _value(value, kind, "c")  # type: ignore[arg-type]


def test_ids_are_compared_a_range_of_hashes_at_a_time(tmp_path: Path) -> None:
    from torch_towers.formats.text_lines import to_lines

    names = [[f"{part}-{i}".encode() for i in range(200)] for part in range(5)]
    paths = [tmp_path / f"p{part}.ids" for part in range(5)]

    def put() -> None:
        for path, part in zip(paths, names, strict=True):
            (tmp_path / f"{path.name}.txt").write_bytes(to_lines(part))
            hashes = [hashlib.blake2b(name, digest_size=8).digest() for name in part]
            np.save(tmp_path / f"{path.name}.npy", np.sort(np.frombuffer(b"".join(hashes), np.uint64)))

    put()
    assert repeated_id(paths, budget=64) is None
    names[4][150] = b"1-7"
    put()
    assert repeated_id(paths, budget=64) == repeated_id(paths) == "1-7"


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (3, 2), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_as_text_are_the_same_numbers(values: Any) -> None:
    from torch_towers.bulk.vertex import _numbers

    read = np.array([json.loads(f"[{line}]", parse_int=float) for line in _numbers(values)], np.float64).astype(
        np.float32
    )
    assert (read.view(np.uint32) == values.view(np.uint32)).all()


# -- resuming -----------------------------------------------------------------------------------------------------------


def _child(text: str, steps: int) -> None:
    """Runs a job, and dies by SIGKILL at the `steps`-th step that a kill could fall between."""
    from torch_towers.bulk import worker

    left = [steps]

    def dying(function: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return step

    for name in ("replace", "fsync", "truncate"):
        setattr(os, name, dying(getattr(os, name)))
    worker.Worker.embed = dying(worker.Worker.embed)  # type: ignore[method-assign]
    Path.unlink = dying(Path.unlink)  # type: ignore[method-assign]
    run(Job.from_json(text))


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", ["i.parquet", "i.csv", "i.jsonl"])
def test_killed_at_random_and_resumed(checkpoint: Path, tmp_path: Path, form: Any, name: str) -> None:
    if name != "i.parquet" and form not in ("parquet", "npy"):
        pytest.skip("what is written does not depend on what was read")
    table: list[dict[str, Any]] = rows(60)
    path = write(tmp_path / name, table)
    whole = job(checkpoint, path, tmp_path / "whole", output=Output(form), on_error="skip")
    run(whole)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["torch_towers.bulk", "pyarrow.parquet", "pyarrow.csv", __name__])
    choose, kills = random.Random(f"{form}{name}"), 0
    broken = replace(whole, folder=str(tmp_path / "out"))
    for _ in range(100):
        child = processes.Process(
            target=_child, args=(broken.to_json(), choose.randint(1, 25) if kills < 5 else 1 << 30)
        )
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        kills += 1
    else:
        pytest.fail("it never came to its end")
    assert kills >= 2
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "out.job" / "manifest.jsonl").read_text().splitlines()]
    parts = [tuple(line["part"]) for line in lines if "part" in line]
    assert sorted(parts) == [(0, i) for i in range(5)] and lines[-1] == {"done": True}
    assert not list((tmp_path / "out.job").glob("part-*"))


def test_what_is_resumed_must_be_the_same_job(checkpoint: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", rows(30))
    first = job(checkpoint, path, tmp_path / "out")
    run(first)
    for change, said in (
        ({"checkpoint_sha256": "0" * 64}, "the checkpoint is not that of the job"),
        ({"batch_size": 6}, "the option batch-size"),
        ({"normalize": True}, "the option normalize"),
        ({"output": Output("npy")}, "the option output"),
    ):
        with pytest.raises(BulkError, match=said):
            run(replace(first, **change))  # type: ignore[arg-type]
    write(path, rows(30, seed=1))
    with pytest.raises(BulkError, match="the input is not that of the job"):
        run(job(checkpoint, path, tmp_path / "out"))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    write(moved / "i.parquet", rows(30))
    assert run(job(checkpoint, moved / "i.parquet", tmp_path / "out")).new_rows == 0


def test_damage_is_seen_when_a_job_is_resumed(checkpoint: Path, tmp_path: Path) -> None:
    this = job(checkpoint, write(tmp_path / "i.parquet", rows(30)), tmp_path / "out")
    run(this)
    manifest = tmp_path / "out.job" / "manifest.jsonl"
    whole = manifest.read_bytes()
    part = tmp_path / "out" / "part-00000-000001.parquet"
    data = bytearray(part.read_bytes())
    data[20] ^= 1
    part.write_bytes(data)
    with pytest.raises(BulkError, match="is not the file that was written there"):
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
    with pytest.raises(BulkError, match=r"holds 'notes\.txt', which is not of this job"):
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
        with pytest.raises(BulkError, match=re.escape(f"holds {Path(name).name!r}, which is not of this job")):
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
    with pytest.raises(BulkError, match=r"is damaged|is of another version"):
        run(this)
    assert (this.work / "manifest.jsonl").read_text() == text


@pytest.mark.parametrize("format", ["parquet", "npy", "vertex-json", "vertex-csv"])
def test_a_full_disk_names_the_file(checkpoint: Path, tmp_path: Path, format: str) -> None:
    code = (
        "import resource, signal, sys; from torch_towers import cli; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import torch, pyarrow.parquet, torch_towers.bulk\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1400, 1400))\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    source = write(tmp_path / "i.jsonl", rows(300))
    command = [
        "embed", str(checkpoint), "--tower", "candidate", "--input", str(source), "--output", str(tmp_path / "out"), "--quiet",
        "--format", format, "--id-column", "sku",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"torch-towers: {re.escape(str(tmp_path))}/out\.job/\S+: .*(File too large).*\n", done.stderr)


@pytest.mark.parametrize("option", ["input", "output"])
def test_stores_are_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    from torch_towers import cli

    monkeypatch.chdir(tmp_path)
    paths = {"input": str(write(tmp_path / "i.parquet", rows(5))), "output": "out", option: "gs://bucket/x.parquet"}
    command = ["embed", str(checkpoint), "--tower", "candidate", "--input", paths["input"], "--output", paths["output"]]
    assert cli.main(command) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["i.parquet"]


def test_a_header_of_many_columns(tmp_path: Path) -> None:
    """60,000 columns are 3.6e9 comparisons where each is counted among all."""
    code = (
        "from torch_towers.bulk.read import column_names; from torch_towers.bulk.sources import find_sources\n"
        "try: print(len(column_names(find_sources(sys.argv[1:])[0])))\n"
        "except torch_towers.TorchTowersError as error: print(error)"
    )
    names = [f"c{i}" for i in range(60_000)]
    for listed, said in ((names, "60000"), ([*names, "c7"], "two columns are named 'c7'")):
        (tmp_path / "i.csv").write_text(",".join(listed) + "\n")
        assert said in within_budget(code, str(tmp_path / "i.csv"))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_line_without_end(tmp_path: Path, suffix: str) -> None:
    from torch_towers.bulk.read import column_names

    path = tmp_path / f"i.{suffix}.gz"
    path.write_bytes(gzip.compress(b"a" * 100_000))
    with pytest.raises(BulkError, match=r"a line is longer than 1000 bytes: .* --max-line-bytes raises the limit"):
        column_names(find_sources([str(path)], max_line=1000)[0])


@pytest.mark.parametrize("suffix", ["csv.gz", "tsv.gz", "jsonl.gz", "jsonl"])
@pytest.mark.parametrize("kind", ["lines", "a line", "a line of values"])
def test_files_that_unfold_to_gigabytes(tmp_path: Path, suffix: str, kind: str) -> None:
    """Within five seconds and 300 MB: an error that names the file, or rows that are said to be bad."""
    code = (
        "from torch_towers.bulk.read import Wanted, read_blocks; from torch_towers.bulk.sources import find_sources\n"
        "wanted = Wanted(('a',), frozenset(), 'query')\n"
        "try: print('bad', sum(len(block.bad) for block in read_blocks(find_sources(sys.argv[1:])[0], wanted, 64, lambda i: i > 0)))\n"
        "except torch_towers.TorchTowersError as error: print(error)"
    )
    separator = {"csv": b",", "tsv": b"\t"}.get(suffix[:3], b"[],")
    piece = {"lines": b"x" * 1023 + b"\n", "a line": b"x" * 1024, "a line of values": separator * 1024}[kind]
    path = tmp_path / f"i.{suffix}"
    packed = suffix.endswith(".gz")
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file:
        file.write(b"[" if kind == "a line of values" else b"a\n")
        for _ in range((96 if packed else 24) << 3):
            file.write(piece * 128)
    said = within_budget(code, str(path))
    assert str(path) in said or said.startswith("bad"), said


def test_what_unfolds_to_more_than_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_towers.bulk.read import Wanted, read_blocks

    def count(max_ratio: int) -> int:
        wanted = Wanted(("a",), frozenset(), "query")
        blocks = read_blocks(find_sources([str(path)], max_ratio=max_ratio)[0], wanted, 1000, lambda _: False)
        return sum(map(len, blocks))

    monkeypatch.setattr("torch_towers.bulk.read._FREE", 1000)
    path = tmp_path / "i.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" * 100_000))
    with pytest.raises(BulkError, match=rf"{path}: unfolds to over .* more than 20 times its size: .* --max-ratio"):
        count(20)
    assert count(2000) == 99_999


def test_an_output_that_is_a_file(checkpoint: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "i.parquet", rows(5))
    for folder in (path, path / "x"):
        with pytest.raises(BulkError, match="the output is a folder"):
            run(job(checkpoint, path, folder))


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


def test_two_processes_do_not_run_one_job(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    from torch_towers.bulk.manifest import Manifest

    this = job(checkpoint, write(tmp_path / "i.parquet", rows(5)), tmp_path / "out")
    with Manifest(this), pytest.raises(BulkError, match="another process runs this job"):
        run(this)
    assert run(this).rows == 5


def test_parts_are_whole_batches(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="whole number of batches"):
        job(checkpoint, write(tmp_path / "i.parquet", rows(5)), tmp_path / "out", batch_size=5)


def test_progress(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(job(checkpoint, write(tmp_path / "i.jsonl", rows(30)), tmp_path / "out"), show_progress=True)
    shown = capsys.readouterr().err
    assert "embed" in shown and "30.0" in shown and "rows/s" in shown


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
