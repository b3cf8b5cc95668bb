"""The same SavedModel, ported by two processes whose hashes of strings differ, is the same checkpoint to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.corpus.catalog import FOLDER, catalog

ROOT = Path(__file__).resolve().parents[2]
LARGE = [FOLDER / recorded.name for recorded in catalog() if recorded.name in ("tt-multitask-osama", "tft-taxi-tfx")]
PORT = """
import sys
from porting.port import main
for i, source in enumerate(sys.argv[2:]):
    assert main(["--query", source, "-o", f"{sys.argv[1]}/{i}", "--no-verify"]) == 0
"""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_ports_are_equal(people: Path, tmp_path: Path) -> None:
    found: list[dict[str, bytes]] = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", PORT, str(tmp_path / seed), str(people), *map(str, LARGE)]
        (tmp_path / seed).mkdir()
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True)
        found.append(files(tmp_path / seed))
    first, second = found
    assert {"0/config.json", "0/model.safetensors"} <= set(first)
    assert any("0/vocab" in path for path in first)
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []
