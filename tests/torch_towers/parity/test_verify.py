"""`torch-towers verify`: hashes, and recorded answers again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.torch_towers.towers import ROWS, WORDS, two_towers
from torch_towers import cli


def reference(path: Path, **changes: Any) -> Path:
    towers = two_towers()
    assert towers.query is not None and towers.candidate is not None
    outputs = {"serving_default|out|embedding": towers.query(ROWS)["embedding"].numpy().copy()}  # type: ignore[union-attr]
    arrays = {
        "serving_default|in|word": np.array(ROWS["word"]),
        "serving_default|in|size": np.array(ROWS["size"], np.float32),
        **outputs,
    }
    np.savez(path, **{**arrays, **changes})
    return path


def test_verify(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(checkpoint)]) == 0
    assert "every sha256 matches" in capsys.readouterr().out
    good = reference(tmp_path / "good.npz")
    assert cli.main(["verify", str(checkpoint), "--reference", str(good)]) == 0
    assert "ok   query embedding: apart 0.00e+00" in capsys.readouterr().out
    answers = np.load(good)["serving_default|out|embedding"]
    wrong = answers.copy()
    wrong[2, 1] += 1e-3
    for changed, said in (
        (wrong, "apart"),
        (answers[:, :3], "instead of the recorded"),
        (answers.astype(np.float64), "float64"),
    ):
        bad = reference(tmp_path / "bad.npz", **{"serving_default|out|embedding": changed})
        assert cli.main(["verify", str(checkpoint), "--reference", str(bad)]) == 1
        shown = capsys.readouterr().out
        assert "FAIL query embedding" in shown and said in shown
    other = tmp_path / "other.npz"
    np.savez(other, **{"else|out|x": answers})
    assert cli.main(["verify", str(checkpoint), "--reference", str(other)]) == 2
    assert "has nothing for" in capsys.readouterr().err
    other.write_bytes(b"no")
    assert cli.main(["verify", str(checkpoint), "--reference", str(other)]) == 2


@pytest.mark.parametrize("names, equal", [(list(WORDS[1:4]), 3), ([b"green", b"blue", b"x"], 2)])
def test_verify_compares_strings_exactly(
    tmp_path: Path, names: Any, equal: int, capsys: pytest.CaptureFixture[str]
) -> None:
    towers = two_towers()
    towers.save(tmp_path / "c")
    assert towers.candidate is not None
    found: Any = towers.candidate([1, 2, 3])
    arrays = {
        "serving_default|in|id": np.array([1, 2, 3]), "serving_default|out|embedding": found["embedding"].numpy(),
        "serving_default|out|name#bytes": np.frombuffer(b"".join(names), np.uint8),
        "serving_default|out|name#lengths": np.array([len(name) for name in names]),
    }  # fmt: skip
    np.savez(tmp_path / "r.npz", **arrays)
    status = cli.main(["verify", str(tmp_path / "c"), "--reference", str(tmp_path / "r.npz"), "--tower", "candidate"])
    assert status == (0 if equal == 3 else 1) and f"{equal} of 3 values equal" in capsys.readouterr().out


def test_verify_sees_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_towers().save(tmp_path / "c")
    weights = tmp_path / "c" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    assert cli.main(["verify", str(tmp_path / "c")]) == 2
    assert "sha256" in capsys.readouterr().err
