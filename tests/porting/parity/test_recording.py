"""Answers that TensorFlow gave elsewhere stand in for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from porting.port import main
from tests.porting.conftest import PACKAGES, SIDES
from torch_towers import cli
from torch_towers.testing import assert_parity

pytest.importorskip("tensorflow", reason="TensorFlow is the witness here")


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
