"""`torch-towers search`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from torch_towers import cli, load
from torch_towers.two_tower import TwoTower

from ..towers import id_tower, word_tower


def test_search(checkpoint: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    query = json.dumps({"word": "red", "size": 0.5})
    towers = load(checkpoint)
    scores, best = towers.top_k(towers.encode_query([json.loads(query)]), towers.encode_candidate(list(range(8))), 3)
    wanted = [(f"s{i}", score) for i, score in zip(best[0].tolist(), scores[0].tolist(), strict=True)]
    index = str(tmp_path / "index")
    common = ["search", str(checkpoint), "--query", query, "-k", "3", "--json"]
    assert (
        cli.main(
            [
                "embed",
                str(checkpoint),
                "--tower",
                "candidate",
                "--input",
                str(items),
                "--output",
                str(tmp_path / "e"),
                "--id-column",
                "sku",
            ]
        )
        == 0
    )
    assert cli.main(["embed", str(checkpoint), "--tower", "candidate", "--input", str(items), "--output", str(tmp_path / "n"), "--id-column", "sku",
                     "--format", "npy"]) == 0  # fmt: skip
    for where in (["--candidates", str(items), "--id-column", "sku", "--save-index", index], ["--index", index],
                  ["--candidates", str(tmp_path / "e")], ["--candidates", str(tmp_path / "n")]):  # fmt: skip
        capsys.readouterr()
        assert cli.main([*common, *where]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["query"] == query
        assert [(hit["id"], pytest.approx(hit["score"])) for hit in found["results"]] == wanted
    assert cli.main([*common[:-1], "--index", index]) == 0
    assert f"{wanted[0][1]:.4f}  {wanted[0][0]}" in capsys.readouterr().out
    assert cli.main([*common, "--query", "red", "--index", index]) == 2
    assert "takes word (string), size (float32): give a JSON object" in capsys.readouterr().err


def test_files_are_searched_a_block_at_a_time(
    checkpoint: Path, embedded: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    from torch_towers.bulk import table

    monkeypatch.setattr(table, "_BLOCK", 3 * 4 * 4)  # three candidates
    towers = load(checkpoint)
    queries = [{"word": "red", "size": 0.5}, {"word": "blue", "size": -1.0}]
    for form, where in embedded.items():
        for k in (1, 5, 100):
            blocks = table.read_candidates(towers, where[:1], where[2] if where[1:] else None)
            found = table.search(towers, queries, blocks, k)
            index = table.read_index(towers, table.read_candidates(towers, where[:1], where[2] if where[1:] else None))
            wanted = index.search(queries, k)
            assert found.ids.tolist() == wanted.ids.tolist(), form
            assert np.allclose(found.scores, wanted.scores, atol=1e-6)  # another order of sums
    assert len(list(table.read_candidates(towers, embedded["npy"]))) == 3
    capsys.readouterr()
    assert cli.main(["search", str(checkpoint), "--query", "red", "--candidates", *embedded["npy"]]) == 2
    assert "give a JSON object" in capsys.readouterr().err


def test_equal_scores_of_other_blocks_keep_their_order(tmp_path: Path) -> None:
    from torch_towers.bulk import table

    towers = TwoTower(word_tower(), id_tower())
    same = [(np.full((2, 4), 0.5, np.float32), [2 * i, 2 * i + 1]) for i in range(4)]
    found = table.search(towers, [{"word": "red", "size": 0.5}], (piece for piece in same), 5)
    assert found.ids.tolist() == [[0, 1, 2, 3, 4]]


def test_damaged_embeddings_are_refused(
    checkpoint: Path, embedded: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    common = ["search", str(checkpoint), "--query", '{"word": "red", "size": 0.5}', "--candidates"]
    folder = Path(embedded["npy"][0])
    whole = (folder / "embeddings.npy").read_bytes()
    half = np.zeros((8, 4), np.float64)
    lists = pa.table({"id": [1], "embedding": [[1.0, 2.0]]})
    for name, change, said in (
        ("embeddings.npy", lambda path: path.write_bytes(whole[:-5]), "ends before its 8 rows"),
        ("embeddings.npy", lambda path: path.write_bytes(b"no"), "cannot be read"),
        ("embeddings.npy", lambda path: np.save(path, half), "holds float64"),
        ("ids.txt", lambda path: path.write_bytes(b"a\n"), "ends before its 8 rows"),
    ):
        before = (folder / name).read_bytes()
        change(folder / name)
        assert cli.main([*common, str(folder)]) == 2, said
        assert said in capsys.readouterr().err
        (folder / name).write_bytes(before)
    part = Path(embedded["parquet"][0]) / "part-00000-000000.parquet"
    parquet.write_table(lists, part)
    assert cli.main([*common, str(part)]) == 2
    assert "its embeddings are list<" in capsys.readouterr().err


def test_search_among_the_candidates_of_the_checkpoint(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", str(checkpoint), "--query", '{"word": "a", "size": 1}']) == 2
    assert "holds no candidates" in capsys.readouterr().err


def test_an_index_is_saved_nowhere_else(
    checkpoint: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The place is looked at before the rows are embedded."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.py").write_text("mine")
    command = ["search", str(checkpoint), "--query", "x", "--candidates", "no such file", "--save-index"]
    for place, said in (
        (str(tmp_path / "mine"), "holds 'train.py'"),
        ("gs://bucket/index", "stores are not supported"),
    ):
        assert cli.main([*command, place]) == 2
        assert said in capsys.readouterr().err
