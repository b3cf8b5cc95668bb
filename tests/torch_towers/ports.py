"""The demo's two towers, ported once for a run of the tests: real graphs for tests that need no TensorFlow."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path
from typing import Any

from porting.saved_model import read
from porting.tower import port_tower
from torch_towers import TwoTower

PACKAGES = Path(__file__).parents[2] / "examples" / "packages"
_WORDS = (PACKAGES / "README.md").read_text().split() if (PACKAGES / "README.md").is_file() else ["edit", "photos"]


@functools.cache
def checkpoint() -> Path:
    """The folder of the demo's checkpoint; it lives as long as the process."""
    sides = {side: port_tower(read(PACKAGES / f"{side}_model")).tower() for side in ("query", "candidate")}
    _folders.append(tempfile.TemporaryDirectory())
    path = Path(_folders[-1].name) / "packages"
    TwoTower(**sides, similarity="cosine").save(path)
    return path


_folders: list[tempfile.TemporaryDirectory[str]] = []


def queries(count: int, seed: int = 0) -> dict[str, list[str]]:
    """Texts of 0 to 50 words, some of them not ASCII."""
    choose = random.Random(seed)
    return {"text": [_text(choose) for _ in range(count)]}


def candidates(count: int, seed: int = 0) -> dict[str, list[Any]]:
    """Packages with every feature of the candidate tower."""
    choose = random.Random(seed)
    sections = ["graphics", "games", "net", "no such section", ""]
    return {
        "name": [f"lib{_text(choose)[:12]}" for _ in range(count)],
        "section": [choose.choice(sections) for _ in range(count)],
        "description": [_text(choose) for _ in range(count)],
        "size": [choose.randrange(1, 60_000) for _ in range(count)],
    }


def _text(choose: random.Random) -> str:
    words = [choose.choice(_WORDS) for _ in range(choose.randrange(50))]
    return " ".join(words) + choose.choice(["", "", " Ünïcode ÇA", " 日本語 editing"])
