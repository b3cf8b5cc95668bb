"""Blocks of rows as embeddings: columns by other names, lists, rows that only the tower refuses, whole batches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.torch_towers.bulk.jobs import expected, job, near, result, rows, write
from torch_towers.bulk import BulkError, run
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.tower import Tower, TowerSpec
from torch_towers.two_tower import TwoTower

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402


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
        BulkError, match="all of rows 0 to 99 are invalid: row 0: feature 'size': 'wide' is not a number"
    ):
        run(job(checkpoint, path, tmp_path / "out", on_error="skip", batch_size=100, rows_per_part=100))


def test_parts_are_whole_batches(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BulkError, match="whole number of batches"):
        job(checkpoint, write(tmp_path / "i.parquet", rows(5)), tmp_path / "out", batch_size=5)
