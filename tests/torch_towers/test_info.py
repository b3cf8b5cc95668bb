"""A checkpoint in a few facts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torch_towers import cli


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
