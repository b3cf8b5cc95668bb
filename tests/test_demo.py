"""The demo: its committed checkpoint is what the porter writes, and gives good results. Needs no TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_towers
from examples.packages.demo import packages
from porting.port import main

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "checkpoints" / "packages"
EXAMPLES = ROOT / "examples" / "packages"
FOUND = {
    "edit photos": {"shotwell", "rawtherapee", "digikam", "fotoxx"},
    "play music": {"juk", "strawberry", "mopidy", "sonata"},
    "chess game": {"stockfish", "fairymax", "glaurung"},
    "web browser": {"chromium", "dillo", "epiphany-browser"},
    "compress files": {"bzip2", "gzip", "lzma"},
}


def test_queries_find_what_people_look_for() -> None:
    towers = torch_towers.load(CHECKPOINT)
    rows = packages()
    candidates = towers.encode_candidate(rows)
    _, indices = towers.top_k(towers.encode_query({"text": list(FOUND)}), candidates, k=10)
    for (query, wanted), best in zip(FOUND.items(), indices.tolist(), strict=True):
        names = {rows[index]["name"] for index in best}
        assert len(names & wanted) >= min(3, len(wanted)), f"{query!r} finds {sorted(map(str, names))}"


def test_the_committed_checkpoint_is_what_the_porter_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = ["--query", str(EXAMPLES / "query_model"), "--candidate", str(EXAMPLES / "candidate_model")]
    assert main([*sides, "-o", str(tmp_path / "packages"), "--no-verify"]) == 0
    fresh, committed = tmp_path / "packages", CHECKPOINT
    advice = "is not what the porter writes: run `make demo` and commit it"
    assert (fresh / "model.safetensors").read_bytes() == (committed / "model.safetensors").read_bytes(), advice
    assert config(fresh) == config(committed), advice


def config(checkpoint: Path) -> dict[str, Any]:
    """config.json without the samples, whose answers are TensorFlow's on the machine that recorded them."""
    found = json.loads((checkpoint / "config.json").read_bytes())
    return {name: value for name, value in found.items() if name not in ("sha256", "samples")}


def test_towers_end_in_a_unit_norm_and_so_the_similarity_is_cosine() -> None:
    towers = torch_towers.load(CHECKPOINT)
    assert towers.similarity_function == "cosine"
    lengths = towers.encode_query(["edit photos", "", "ünïcödé \U0001f600"]).norm(dim=1)
    assert torch.allclose(lengths, torch.ones(3), atol=1e-6)  # a unit vector of 64 float32 values is within 4 ulp of 1
