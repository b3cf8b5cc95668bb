"""A port carries its evidence: samples and answers in the checkpoint, repeated without TensorFlow; a readable report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torch_towers
from porting.port import main
from tests.porting.conftest import SIDES
from torch_towers import cli
from torch_towers.errors import CheckpointError
from torch_towers.parity.verify import recorded_in
from torch_towers.testing import assert_parity

pytest.importorskip("tensorflow", reason="TensorFlow is the witness here")


def test_the_samples_are_in_the_checkpoint(proven: Path) -> None:
    batches = recorded_in(proven)
    assert set(batches) == {"query", "candidate"}
    assert {batch.kind for batch in batches["query"]} == {"domain", "edge"}
    assert all("words" in batch.ids for batch in batches["query"])
    assert (proven / "samples.npz").stat().st_size < 512 << 10


def test_verify_asks_again_without_tensorflow(proven: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        f"from torch_towers import cli; sys.exit(cli.main(['verify', {str(proven)!r}, '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] and report["rows"]["query"] >= 40
    assert {"words", "output_0"} <= {found["output"] for found in report["outputs"] if found["tower"] == "query"}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_at_another_precision(proven: Path, dtype: str) -> None:
    assert cli.main(["verify", str(proven), "--dtype", dtype]) == 0


def test_assert_parity_names_what_differs(proven: Path) -> None:
    assert_parity(proven)
    towers = torch_towers.load(proven)
    assert_parity(proven, towers)
    with torch.no_grad():
        towers.query.encoder.get_parameter("dense.bias").add_(1e-3)  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match=r"query output_0: apart .* is allowed"):
        assert_parity(proven, towers)


def test_samples_that_were_changed_are_refused(proven: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(proven, copy)
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


def test_what_was_fine_tuned_has_no_proof(proven: Path, tmp_path: Path) -> None:
    torch_towers.load(proven).save(tmp_path / "c")
    assert recorded_in(tmp_path / "c") == {}
