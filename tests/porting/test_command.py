"""What the command does with what it is given: what is compared with what, and what it says and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import torch_towers
from porting.parity.oracle import Oracle, OracleError
from porting.port import main
from tests.porting.conftest import DIM
from tests.witness import tf


def both(towers: Path, out: Path, *more: str) -> list[str]:
    sides = [
        "--query",
        str(towers),
        "--query-signature",
        "query",
        "--candidate",
        str(towers),
        "--candidate-signature",
        "candidate",
    ]
    return [*sides, "-o", str(out), *more]


def test_two_signatures_of_one_saved_model(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ported"
    assert main(both(towers, out, "--explain")) == 0
    printed = capsys.readouterr().out
    assert "similarity: dot (auto)" in printed
    assert "ok   embedding: RMS error" in printed
    assert "int64 values equal to the bit" in printed
    assert "left out" in printed
    assert "'spare' [256] float32" in printed
    ported = torch_towers.load(out)
    assert ported.encode_query(["a", "zebra"]).shape == (2, DIM)
    assert ported.encode_candidate({"features": np.ones((5, 3))}).shape == (5, DIM)
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors", "parity.json", "MODEL.md"}
    parity = json.loads((out / "parity.json").read_text())
    assert parity["query"]["passed"]
    assert parity["query"]["outputs"]["embedding"]["ratio"] <= 1.25


def test_json(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(both(towers, tmp_path / "ported", "--json", "--no-verify", "--similarity", "cosine")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["similarity"] == "cosine"
    assert found["towers"]["query"]["parity"]["compared_with"] == "nothing"
    assert found["towers"]["query"]["lifted"]


def test_what_was_not_compared_is_said(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--query", str(towers), "--signature", "query", "-o", str(tmp_path / "ported"), "--no-verify"]) == 0
    assert "not compared: --no-verify was given" in capsys.readouterr().out
    assert json.loads((tmp_path / "ported" / "parity.json").read_text())["query"]["compared_with"] == "nothing"


def test_where_tensorflow_is_absent_the_report_says_that_nothing_was_compared(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("porting.port.tensorflow_installed", lambda: False)
    assert main(["--query", str(towers), "--signature", "query", "-o", str(tmp_path / "ported")]) == 0
    assert "not compared: TensorFlow is not installed here" in capsys.readouterr().out
    parity = json.loads((tmp_path / "ported" / "parity.json").read_text())
    assert "TensorFlow is not installed" in parity["query"]["why_not"]


def test_what_tensorflow_cannot_load_is_ported_without_evidence(
    towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise OracleError("TensorFlow could not run it: NotFoundError: no file")

    monkeypatch.setattr(Oracle, "run", run)
    out = tmp_path / "ported"
    assert main(["--query", str(towers), "--signature", "query", "-o", str(out)]) == 3
    assert json.loads((out / "parity.json").read_text())["query"]["verdict"] == "not enough evidence"
    printed = capsys.readouterr().out
    assert "not compared: TensorFlow could not run it: NotFoundError: no file" in printed
    assert "give recorded answers with --reference" in printed


def test_recorded_answers_decide(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = np.array([b"a", b"c", b"x"])
    table = tf.saved_model.load(str(towers)).signatures["query"](word=tf.constant(words))
    recorded = {"query|in|word": words, **{f"query|out|{name}": value.numpy() for name, value in table.items()}}
    good, bad, out = tmp_path / "good.npz", tmp_path / "bad.npz", tmp_path / "ported"
    np.savez(good, **recorded)
    np.savez(bad, **{**recorded, "query|out|id": recorded["query|out|id"] + 1})
    arguments = ["--query", str(towers), "--signature", "query", "-o", str(out), "--reference"]
    assert main([*arguments, str(bad)]) == 1
    assert not out.exists()
    assert "FAIL id: 0 of 3" in capsys.readouterr().out
    assert main([*arguments, str(bad), "--keep"]) == 1
    assert not out.exists()
    kept = tmp_path / "ported.unequal"
    assert "is NOT equal to TensorFlow" in (kept / "MODEL.md").read_text()
    assert json.loads((kept / "parity.json").read_text())["query"]["verdict"] == "unequal"
    assert "NOT equal to TensorFlow: kept for inspection" in (kept / "report.html").read_text()
    assert main([*arguments, str(good)]) == 0
    assert out.is_dir()
    assert main([*arguments, str(bad)]) == 1  # the checkpoint that was there stays
    assert torch_towers.load(out).encode_query(["a"]).shape == (1, DIM)


@pytest.mark.parametrize("form", ["npz", "jsonl"])
def test_examples_of_the_user(towers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    examples = tmp_path / f"examples.{form}"
    if form == "npz":
        np.savez(examples, word=np.array(["a", "b", "ü"]))
    else:
        examples.write_text('{"word": "a"}\n{"word": "b"}\n{"word": "ü"}\n', encoding="utf-8")
    arguments = [
        "--query",
        str(towers),
        "--signature",
        "query",
        "-o",
        str(tmp_path / "ported"),
        "--inputs",
        str(examples),
    ]
    assert main(arguments) == 0
    assert "on 3 rows in 1 batches" in capsys.readouterr().out
