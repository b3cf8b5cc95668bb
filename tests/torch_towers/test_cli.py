"""The command: every subcommand, on a checkpoint made by hand."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch_towers import cli, load
from torch_towers.two_tower import TwoTower

from .towers import ROWS, WORDS, id_tower, two_towers, word_tower

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "towers"
    TwoTower(word_tower(), id_tower()).save(path)
    return path


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps({"sku": f"s{i}", "id": i, "color": "red"}) + "\n" for i in range(8)))
    return path


def test_help_without_torch() -> None:
    code = (
        "import sys; from torch_towers.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as error: assert error.code == 0\n"
        "sys.exit(str({'torch', 'numpy', 'pyarrow', 'porting'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == ""
    for name in ("embed", "search", "similarity", "info", "verify"):
        assert name in done.stdout


@pytest.mark.parametrize("command", ["embed", "search", "similarity", "info", "verify"])
def test_help_of_each(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert "CHECKPOINT" in capsys.readouterr().out


def test_commands_of_other_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert found["scripts"]["torch-towers"] == "torch_towers.cli:main"
    points = [EntryPoint(name, value, cli.GROUP) for name, value in found["entry-points"][cli.GROUP].items()]
    monkeypatch.setattr(cli, "entry_points", lambda group: points if group == cli.GROUP else [])
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "turn TensorFlow SavedModels into a checkpoint" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["port", "--help"])
    assert "--candidate-signature" in capsys.readouterr().out
    assert cli.main(["port"]) == 2


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
    assert "the option normalize is not that of the job" in capsys.readouterr().err


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
        ([], "2 towers: say which one with --tower"),
        (["--tower", "candidate", "--dtype", "int8"], "is not one of float16"),
    ],
)
def test_embed_arguments(
    checkpoint: Path, items: Path, tmp_path: Path, more: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["embed", str(checkpoint), "--input", str(items), "--output", str(tmp_path / "out"), *more]
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_no_checkpoint(tmp_path: Path, items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["info"],
        ["verify"],
        ["search", "--query", "a", "--index", "x"],
        ["embed", "--input", str(items), "--output", "o"],
    ):
        assert cli.main([arguments[0], str(tmp_path / "none"), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert error.startswith("torch-towers: ") and "none" in error and "Traceback" not in error


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


@pytest.fixture
def embedded(checkpoint: Path, items: Path, tmp_path: Path) -> dict[str, list[str]]:
    """The candidates in every form that search and similarity read; two of the ids are equal but for what a line cannot hold."""
    pytest.importorskip("pyarrow")
    lines = [{"sku": name, "id": i} for i, name in enumerate(["a", "b", "c\td", "e\nf", "g", "h", "ü", "i\\t"])]
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    forms = {"rows": [str(items), "--id-column", "sku"]}
    for form, more in (("parquet", ["--id-column", "sku"]), ("npy", ["--id-column", "sku", "--format", "npy"]), ("numbers", ["--format", "npy"])):  # fmt: skip
        out = str(tmp_path / form)
        assert cli.main(["embed", str(checkpoint), "--tower", "candidate", "--input", str(items), "--output", out, *more]) == 0  # fmt: skip
        forms[form] = [out]
    return forms


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


def test_info(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(checkpoint)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "similarity dot",
        "query: ",
        "inputs   word string [batch], size float32 [batch]",
        "outputs  embedding float32 [batch, 4], name string [batch]",
    ):
        assert part in shown
    assert cli.main(["info", str(checkpoint), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["towers"]["candidate"]["embedding"] == "embedding"
    assert cli.main(["info", str(checkpoint), "--full"]) == 0
    assert "Linear(in_features=4, out_features=4)" in capsys.readouterr().out


def reference(path: Path, **changes: Any) -> Path:
    towers = two_towers()
    assert towers.query is not None and towers.candidate is not None
    outputs = {"serving_default|out|embedding": towers.query(ROWS)["embedding"].numpy().copy()}  # type: ignore[union-attr]
    arrays = {
        "serving_default|in|word": np.array(ROWS["word"]),
        "serving_default|in|size": np.array(ROWS["size"], np.float32),
        **outputs,
    }
    np.savez(path, **{**arrays, **changes})
    return path


def test_verify(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(checkpoint)]) == 0
    assert "every sha256 is right" in capsys.readouterr().out
    good = reference(tmp_path / "good.npz")
    assert cli.main(["verify", str(checkpoint), "--reference", str(good)]) == 0
    assert "ok   query embedding: apart 0.00e+00" in capsys.readouterr().out
    answers = np.load(good)["serving_default|out|embedding"]
    wrong = answers.copy()
    wrong[2, 1] += 1e-3
    for changed, said in (
        (wrong, "apart"),
        (answers[:, :3], "for the recorded"),
        (answers.astype(np.float64), "float64"),
    ):
        bad = reference(tmp_path / "bad.npz", **{"serving_default|out|embedding": changed})
        assert cli.main(["verify", str(checkpoint), "--reference", str(bad)]) == 1
        shown = capsys.readouterr().out
        assert "FAIL query embedding" in shown and said in shown
    other = tmp_path / "other.npz"
    np.savez(other, **{"else|out|x": answers})
    assert cli.main(["verify", str(checkpoint), "--reference", str(other)]) == 2
    assert "holds nothing that fits" in capsys.readouterr().err
    other.write_bytes(b"no")
    assert cli.main(["verify", str(checkpoint), "--reference", str(other)]) == 2


@pytest.mark.parametrize("names, equal", [(list(WORDS[1:4]), 3), ([b"green", b"blue", b"x"], 2)])
def test_verify_compares_strings_exactly(
    tmp_path: Path, names: Any, equal: int, capsys: pytest.CaptureFixture[str]
) -> None:
    towers = two_towers()
    towers.save(tmp_path / "c")
    assert towers.candidate is not None
    found: Any = towers.candidate([1, 2, 3])
    arrays = {
        "serving_default|in|id": np.array([1, 2, 3]), "serving_default|out|embedding": found["embedding"].numpy(),
        "serving_default|out|name#bytes": np.frombuffer(b"".join(names), np.uint8),
        "serving_default|out|name#lengths": np.array([len(name) for name in names]),
    }  # fmt: skip
    np.savez(tmp_path / "r.npz", **arrays)
    status = cli.main(["verify", str(tmp_path / "c"), "--reference", str(tmp_path / "r.npz"), "--tower", "candidate"])
    assert status == (0 if equal == 3 else 1) and f"{equal} of 3 values equal" in capsys.readouterr().out


def test_verify_sees_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_towers().save(tmp_path / "c")
    weights = tmp_path / "c" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    assert cli.main(["verify", str(tmp_path / "c")]) == 2
    assert "sha256" in capsys.readouterr().err


def test_a_device_that_is_not_here(checkpoint: Path, items: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device in ("cuda:77", "no such device"):
        for command in (
            ["search", "--query", "a", "--index", "x"],
            ["embed", "--input", str(items), "--output", "o", "--tower", "query"],
        ):
            assert cli.main([command[0], str(checkpoint), *command[1:], "--device", device]) == 2
            error = capsys.readouterr().err
            assert error.startswith(f"torch-towers: the device {device!r} cannot be used on this machine: ")
            assert error.count("\n") == 1


@pytest.mark.parametrize("command, said", [
    (["embed", "{checkpoint}"], "interrupted; the same command goes on where it stopped"), (["info", "{checkpoint}"], "interrupted"),
    (["port"], "interrupted"),
])  # fmt: skip
def test_an_interrupt_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str], said: str
) -> None:
    def interrupted(given: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(command) == 130
    assert capsys.readouterr().err == f"torch-towers: {said}\n"


def test_a_command_whose_package_is_broken_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_added", lambda: {"other": EntryPoint("other", "no_such_module:main", cli.GROUP)})
    assert cli.main(["other"]) == 2
    assert capsys.readouterr().err == "torch-towers: No module named 'no_such_module'\n"


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
