"""`torch-towers export`: an encoder for another runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from torch_towers import load
from torch_towers.cli import main
from torch_towers.errors import TorchTowersError
from torch_towers.source.exported import export

PACKAGES = Path(__file__).parents[3] / "checkpoints" / "packages"


def test_torchs_own_with_a_free_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "query.pt2"
    assert main(["export", str(PACKAGES), "--tower", "query", "--format", "pt2", "-o", str(file)]) == 0
    said = capsys.readouterr().out
    assert "query output_0: " in said and "regex_replace" in said, "what stays behind is said"
    tower = load(PACKAGES).query
    tensors = tower.preprocess(["edit photos", "play chess", "a", "b", "c"])
    found = torch.export.load(file).module()(**tensors)
    torch.testing.assert_close(found["output_0"], tower.encoder(**tensors)["output_0"])


def test_onnx_with_a_free_batch(tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} runs and writes ONNX files: install the extra [onnx]")
    import onnxruntime

    file = tmp_path / "candidate.onnx"
    found, behind = export(PACKAGES, file, "onnx", "candidate")
    assert found and all(item.passed for item in found)
    assert "Hashing" in behind
    session = onnxruntime.InferenceSession(str(file))
    assert not isinstance(session.get_inputs()[0].shape[0], int)


def test_one_of_two_towers_must_be_named_and_files_stay(tmp_path: Path) -> None:
    with pytest.raises(TorchTowersError, match="--tower"):
        export(PACKAGES, tmp_path / "a.pt2", "pt2")
    (tmp_path / "b.pt2").write_text("mine")
    with pytest.raises(TorchTowersError, match="is there already"):
        export(PACKAGES, tmp_path / "b.pt2", "pt2", "query")
