"""Candidates in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torch_towers import cli


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
