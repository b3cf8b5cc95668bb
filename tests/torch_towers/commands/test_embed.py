"""`torch-towers embed`."""

from __future__ import annotations

import gc
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch_towers import cli, load


def test_embed(checkpoint: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arguments = [
        "embed",
        str(checkpoint),
        "--tower",
        "candidate",
        "--input",
        str(items),
        "--output",
        str(tmp_path / "out"),
        "--id-column",
        "sku",
    ]
    assert cli.main(arguments) == 0
    assert "8 rows embedded (" in capsys.readouterr().out and gc.get_freeze_count() == 0
    table = parquet.read_table(tmp_path / "out")
    assert table["id"].to_pylist() == [f"s{i}" for i in range(8)]
    vectors = load(checkpoint).encode_candidate(list(range(8)), convert_to_numpy=True)
    assert (np.array(table["embedding"].to_pylist(), np.float32) == vectors).all()
    assert cli.main(arguments) == 0
    assert "8 rows embedded, 8 of them before" in capsys.readouterr().out
    assert cli.main([*arguments, "--normalize"]) == 2
    assert "the option normalize differs from the job" in capsys.readouterr().err


@pytest.mark.parametrize("name, data", [
    pytest.param("i.jsonl", b'{"sku": ' + b"[" * 200_000 + b"\n", id="nested too deeply"),
    pytest.param("i.jsonl.gz", gzip.compress(b'{"sku": "a", "id": 1, "color": "red"}\n' * 1000, mtime=0)[:60], id="gzip cut short"),
    pytest.param("i.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 40, id="gzip of rubbish"),
    pytest.param("i.jsonl.gz", b"{}\n", id="not gzip"),
])  # fmt: skip
def test_a_first_line_that_nobody_can_read(
    checkpoint: Path, tmp_path: Path, name: str, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(data)
    given = [
        "embed",
        str(checkpoint),
        "--tower",
        "candidate",
        "--input",
        str(tmp_path / name),
        "--output",
        str(tmp_path / "out"),
    ]
    assert cli.main(given) == 2
    said = capsys.readouterr().err
    assert name in said and "Traceback" not in said


def test_embed_for_vertex_and_with_bad_rows(
    checkpoint: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    items.write_text(items.read_text() + '{"sku": "x", "id": 99}\n')
    arguments = ["embed", str(checkpoint), "--tower", "candidate", "--input", str(items), "--output", str(tmp_path / "out"),
                 "--id-column", "sku", "--format", "vertex-json", "--restrict", "color", "--numeric-restrict", "n=id:int"]  # fmt: skip
    assert cli.main(arguments) == 2
    assert f"{items}, row 8: " in capsys.readouterr().err
    assert cli.main([*arguments, "--on-error", "skip"]) == 0
    shown = capsys.readouterr().out
    assert f"{items}, row 8: left out: feature 'id'" in shown and "1 left out" in shown
    (line, *_) = (tmp_path / "out" / "part-00000-000000.json").read_text().splitlines()
    assert json.loads(line)["numeric_restricts"] == [{"namespace": "n", "value_int": 0}]


def test_keys_of_vertex_instances_are_ids(checkpoint: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "prediction.results-00000-of-00001"
    lines = [{"instance": {"data": json.dumps({"id": [i]}), "key": f"k{i}"}, "prediction": {}} for i in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (
        cli.main(
            ["embed", str(checkpoint), "--tower", "candidate", "--input", str(path), "--output", str(tmp_path / "o")]
        )
        == 0
    )
    assert parquet.read_table(tmp_path / "o")["id"].to_pylist() == ["k0", "k1", "k2"]


@pytest.mark.parametrize(
    "more, said",
    [
        (["--tower", "candidate", "--restrict", "color"], "for Vertex Vector Search"),
        (["--tower", "candidate", "--column", "id"], "'id' is not FEATURE=COLUMN"),
        (["--tower", "candidate", "--format", "vertex-json", "--numeric-restrict", "a:long"], "int, float or double"),
        ([], "2 towers: choose one with --tower"),
        (["--tower", "candidate", "--dtype", "int8"], "is not one of float16"),
    ],
)
def test_embed_arguments(
    checkpoint: Path, items: Path, tmp_path: Path, more: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["embed", str(checkpoint), "--input", str(items), "--output", str(tmp_path / "out"), *more]
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err
