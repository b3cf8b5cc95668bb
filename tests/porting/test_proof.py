"""A port carries its proof: samples and answers in the checkpoint, asked again without TensorFlow; a report for people."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import torch_towers
from porting.port import main
from torch_towers import cli
from torch_towers.errors import CheckpointError
from torch_towers.parity.verify import recorded_in
from torch_towers.testing import assert_parity

pytest.importorskip("tensorflow", reason="TensorFlow is the witness here")

PACKAGES = Path(__file__).parents[2] / "examples" / "packages"
SIDES = ["--query", str(PACKAGES / "query_model"), "--candidate", str(PACKAGES / "candidate_model")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proof") / "packages"
    assert main([*SIDES, "-o", str(path)]) == 0
    return path


def test_the_samples_are_in_the_checkpoint(checkpoint: Path) -> None:
    batches = recorded_in(checkpoint)
    assert set(batches) == {"query", "candidate"}
    assert {batch.kind for batch in batches["query"]} == {"domain", "edge"}
    assert all("words" in batch.ids for batch in batches["query"])
    assert (checkpoint / "samples.npz").stat().st_size < 512 << 10


def test_verify_asks_again_without_tensorflow(checkpoint: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        f"from torch_towers import cli; sys.exit(cli.main(['verify', {str(checkpoint)!r}, '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] and report["rows"]["query"] >= 40
    assert {"words", "output_0"} <= {found["output"] for found in report["outputs"] if found["tower"] == "query"}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_at_another_precision(checkpoint: Path, dtype: str) -> None:
    assert cli.main(["verify", str(checkpoint), "--dtype", dtype]) == 0


def test_assert_parity_names_what_differs(checkpoint: Path) -> None:
    assert_parity(checkpoint)
    towers = torch_towers.load(checkpoint)
    assert_parity(checkpoint, towers)
    with torch.no_grad():
        towers.query.encoder.get_parameter("dense.bias").add_(1e-3)  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match=r"query output_0: apart .* is allowed"):
        assert_parity(checkpoint, towers)


def test_samples_that_were_changed_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    data = bytearray((copy / "samples.npz").read_bytes())
    data[-30] ^= 1
    (copy / "samples.npz").write_bytes(data)
    torch_towers.load(copy)  # a tower needs no proof to run
    with pytest.raises(CheckpointError, match=r"samples\.npz: its sha256"):
        assert_parity(copy)
    (copy / "samples.npz").unlink()
    with pytest.raises(CheckpointError, match=r"samples\.npz"):
        assert_parity(copy)


def test_without_samples(tmp_path: Path) -> None:
    assert main([*SIDES[:2], "-o", str(tmp_path / "c"), "--no-samples"]) == 0
    assert not (tmp_path / "c/samples.npz").exists() and recorded_in(tmp_path / "c") == {}
    with pytest.raises(CheckpointError, match="holds no recorded answers"):
        assert_parity(tmp_path / "c")


def test_what_was_fine_tuned_has_no_proof(checkpoint: Path, tmp_path: Path) -> None:
    torch_towers.load(checkpoint).save(tmp_path / "c")
    assert recorded_in(tmp_path / "c") == {}


class Page(HTMLParser):
    """What a browser would fetch, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "svg"
        links = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.fetched += [link for link in links if not link.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_file_that_fetches_nothing(checkpoint: Path) -> None:
    text = (checkpoint / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.fetched == [] and page.pictures == 4
    for said in (
        "Equal to TensorFlow",
        "43 like those that the tower was made for",
        "word_embedding",
        "candidates are TensorFlow's",
    ):
        assert said in page.text
    assert "#0102" not in text  # every stand-in has the page's colour
    assert "prefers-color-scheme: dark" in text


def test_answers_recorded_elsewhere_stand_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "answers.npz"
    assert main(["--record", str(PACKAGES / "query_model"), "-o", str(answers)]) == 0
    assert main([*SIDES[:2], "--reference", str(answers), "-o", str(tmp_path / "c")]) == 0
    printed = capsys.readouterr().out
    assert "compared with recorded outputs on" in printed and "ok   words:" in printed
    assert_parity(tmp_path / "c")
    assert cli.main(["verify", str(tmp_path / "c"), "--reference", str(answers)]) == 0
    stored = dict(np.load(answers))
    name = next(name for name in stored if "|out|" in name)
    stored[name] = stored[name] + np.float32(1e-3)
    np.savez(answers, **stored)
    assert main([*SIDES[:2], "--reference", str(answers), "-o", str(tmp_path / "d")]) == 1
