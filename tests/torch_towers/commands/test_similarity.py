"""`torch-towers similarity`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from torch_towers import cli, load


def test_similarity(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "similarity",
        str(checkpoint),
        "--query",
        '{"word": "red", "size": 0.5}',
        "--candidate",
        '{"id": 3}',
        "--candidate",
        '{"id": [4]}',
    ]
    towers = load(checkpoint)
    wanted = towers.similarity(
        towers.encode_query({"word": ["red"], "size": [0.5]}), towers.encode_candidate([3, 4])
    ).tolist()
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == wanted
    assert cli.main([*arguments, "--json", "--distance", "DOT_PRODUCT_DISTANCE"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == [[-score for score in wanted[0]]]
    assert cli.main([*arguments, "--distance", "EUCLID"]) == 2
    assert "not a distance of Vertex's" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    assert f"{wanted[0][0]:.6f}" in capsys.readouterr().out


def test_similarity_with_files(
    checkpoint: Path, embedded: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    towers = load(checkpoint)
    queries = ['{"word": "red", "size": 0.5}', '{"word": "blue", "size": -1}']
    vectors = towers.encode_query([json.loads(query) for query in queries])
    candidates = towers.encode_candidate(list(range(8)))
    common = ["similarity", str(checkpoint), *(part for query in queries for part in ("--query", query))]
    for form, where in embedded.items():
        names = list(range(8)) if form == "numbers" else ["a", "b", "c\td", "e\nf", "g", "h", "ü", "i\\t"]
        capsys.readouterr()
        assert cli.main([*common, "--candidates", *where, "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["id"] for line in lines] == names
        assert np.allclose([line["scores"] for line in lines], towers.similarity(vectors, candidates).T, atol=1e-6)
        assert cli.main([*common, "--candidates", *where]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.split("\n")[:-1]]
        assert {len(row) for row in rows} == {3} and rows[0][0] == str(names[0])
        if form != "numbers":
            assert [row[0] for row in rows][2:] == ["c\\td", "e\\nf", "g", "h", "ü", "i\\\\t"]
    assert cli.main([*common, "--candidates", *embedded["parquet"], "--distance", "SQUARED_L2_DISTANCE", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert np.allclose(lines[3]["scores"], (vectors - candidates[3]).square().sum(-1), atol=1e-6)


def test_a_query_that_is_nested_too_deeply(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["similarity", str(checkpoint), "--query", '{"a": ' + "[" * 100_000, "--candidate", "1"]
    assert cli.main(given) == 2
    assert "is not a valid JSON object" in capsys.readouterr().err
