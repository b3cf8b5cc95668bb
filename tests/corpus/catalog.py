"""The catalogue of real SavedModels beside the project (if the folder exists), with their recorded outputs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_towers.formats.npz import load_arrays

FOLDER = Path(os.environ.get("TORCH_TOWERS_CORPUS") or "missing")
FEATURES, EVERY, REFUSE = "features", "every", "refuse"

SIDE_EFFECTS = {("tf2-regress-rust", "train")}
"""Entries that train: they must be refused."""
RECORDED_LATER = {("tf2-regress-rust", "w"), ("tf2-regress-rust", "b")}
"""Entries recorded after `train` had run once in the same process (measured: TensorFlow gives the recorded values then, and the
checkpoint's before). They are compared with TensorFlow itself, where it is installed."""


@dataclass(frozen=True)
class Recorded:
    """One SavedModel of the catalogue."""

    name: str
    group: str
    producer: str
    signatures: tuple[str, ...]

    @property
    def path(self) -> Path:
        return FOLDER / self.name

    def arrays(self) -> dict[str, Any]:
        """Its recorded inputs and outputs, `<signature>|in|<input>` and `<signature>|out|<output>`."""
        return load_arrays(self.path / "reference.npz")

    def __str__(self) -> str:
        return self.name


def catalog(*groups: str) -> list[Recorded]:
    """The SavedModels of `groups` (all where none is given), from the table in the folder's README; empty without the folder."""
    readme = FOLDER / "README.md"
    if not readme.is_file():
        return []
    rows = [line.split("|")[1:-1] for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    found: list[Recorded] = []
    for row in rows:
        name, group, version = (cell.strip() for cell in row[:3])
        if group in (groups or (FEATURES, EVERY, REFUSE)):
            found.append(Recorded(name, group, f"{name.split('-')[0]} ({version})", _signatures(FOLDER / name)))
    return found


def _signatures(path: Path) -> tuple[str, ...]:
    reference = path / "reference.npz"
    if not reference.is_file():
        return ()
    return tuple(dict.fromkeys(name.partition("|")[0] for name in load_arrays(reference)))


def entry_of(signature: str) -> str:
    """The entry of the SavedModel that a recorded signature is: "root.en.tokenize#0" is the function "en.tokenize#0"."""
    return re.sub(r"^root\.", "", signature)
