"""The formats of arrays, and a disk that is full."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.torch_towers.bulk.jobs import ROOT, expected, job, near, rows, write
from torch_towers.bulk import Output, run
from torch_towers.formats.text_lines import from_lines


def test_npy(checkpoint: Path, tmp_path: Path) -> None:
    table = rows(30)
    table[4]["sku"] = "two\nlines"
    path = write(tmp_path / "i.parquet", table)
    run(job(checkpoint, path, tmp_path / "out", output=Output("npy")))
    vectors = np.load(tmp_path / "out" / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    assert vectors.dtype == np.float32 and near(vectors, expected(checkpoint, table))
    assert from_lines((tmp_path / "out" / "ids.txt").read_bytes()).tolist() == [row["sku"].encode() for row in table]
    assert sorted(p.name for p in (tmp_path / "out.job").iterdir()) == ["lock", "manifest.jsonl"]
    assert run(job(checkpoint, path, tmp_path / "out", output=Output("npy"))).new_rows == 0
    run(job(checkpoint, path, tmp_path / "out2", output=Output("npy"), id_column="n"))
    assert np.load(tmp_path / "out2" / "ids.npy", allow_pickle=False).tolist() == list(range(30))


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
