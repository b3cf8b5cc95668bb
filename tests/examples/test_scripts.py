"""The example scripts, on the demo's model, ported here."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from torch_towers import load

pytest.importorskip("google.protobuf")
ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "packages"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from porting import port

    path = tmp_path_factory.mktemp("examples") / "packages"
    arguments = [
        "--query",
        str(DEMO / "query_model"),
        "--candidate",
        str(DEMO / "candidate_model"),
        "-o",
        str(path),
        "--no-verify",
    ]
    assert port.main(arguments) == 0
    return path


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first packages of the demo, as CSV."""
    with (DEMO / "packages.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:300]
    path = tmp_path_factory.mktemp("items") / "items.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_search_csv(checkpoint: Path, items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("search_csv").main([str(checkpoint), str(items), "--id-column", "name", "--query", "chess game", "-k", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Index(300 x 64, cosine, exact, ids: str)") and len(lines) == 4
    assert "section: games" in lines[1] and float(lines[1].split()[0]) >= float(lines[3].split()[0])


def test_fine_tune(checkpoint: Path, items: Path, tmp_path: Path) -> None:
    with items.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = [
        {"query": {"text": row["tags"].replace("::", " ")},
         "candidate": {"name": row["name"], "section": row["section"], "size": float(row["size"]), "description": row["description"]}}
        for row in rows
    ]  # fmt: skip
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    losses = script("fine_tune").main([str(checkpoint), str(path), str(tmp_path / "tuned"), "--batch-size", "32"])
    assert len(losses) == 100 and sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert not load(tmp_path / "tuned").encode_query(["chess"]).equal(load(checkpoint).encode_query(["chess"]))


def test_export_vertex(checkpoint: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    query = '{"text": "chess game"}'
    arguments = [str(checkpoint), str(items), str(tmp_path / "v"), "--id-column", "name", "--restrict", "section",
                 "--numeric-restrict", "size:int", "--query", query]  # fmt: skip
    assert script("export_vertex").main(arguments) == 0
    shown = capsys.readouterr().out
    assert "distanceMeasureType COSINE_DISTANCE, dimensions 64, 300 vectors" in shown
    (path,) = (tmp_path / "v").iterdir()
    line = json.loads(path.read_text().splitlines()[0])
    assert line["id"] == "0ad" and line["restricts"] == [{"namespace": "section", "allow": ["games"]}]
    assert line["numeric_restricts"] == [{"namespace": "size", "value_int": 28591}]
    towers = load(checkpoint)
    script("search_csv").main([str(checkpoint), str(items), "--id-column", "name", "--query", query, "-k", "5"])
    best = [row.split()[1] for row in capsys.readouterr().out.splitlines()[1:]]
    assert [row.split()[1] for row in shown.splitlines()[-5:]] == best and towers.similarity_function == "cosine"
