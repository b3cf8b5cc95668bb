"""`torch-towers source` and `torch-towers import`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from torch_towers import load
from torch_towers.cli import main
from torch_towers.source.check import imported

PACKAGES = Path(__file__).parents[3] / "checkpoints" / "packages"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGES, tmp_path / "packages"))


def test_written_trained_and_put_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_tower.py"
    assert main(["source", str(folder), "-o", str(file)]) == 0
    assert "query output_0: " in capsys.readouterr().err
    module = imported(file)
    towers = module.load(folder)
    with torch.no_grad():
        towers.query.dense.weight.mul_(1.5)
    module.save(towers, tmp_path / "trained.safetensors")
    assert main(["import", str(folder), str(tmp_path / "trained.safetensors")]) == 0
    assert "1 weights have new values" in capsys.readouterr().out
    again = load(folder)
    assert torch.equal(again.query.encoder.dense.weight, towers.query.dense.weight)
    tensors = again.query.preprocess(["edit photos"])
    torch.testing.assert_close(again.encode_query(["edit photos"]), towers.query(**tensors).detach())


def test_a_file_that_is_there_stays(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_tower.py"
    file.write_text("mine")
    assert main(["source", str(folder), "-o", str(file)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("query.dense.wieght", torch.ones(128, 32), "did you mean 'query.dense.weight'"),
        ("query.dense.weight", torch.ones(32, 128), r"is torch.float32 [32, 128]"),
        ("query.dense.weight", torch.ones(128, 32, dtype=torch.float16), "is torch.float16"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(
    name: str, value: torch.Tensor, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_file(folder / "model.safetensors")
    save_file({"query.dense.bias": torch.zeros(128), name: value}, tmp_path / "trained.safetensors")
    assert main(["import", str(folder), str(tmp_path / "trained.safetensors")]) == 2
    assert said in capsys.readouterr().err
    after = load_file(folder / "model.safetensors")
    assert all(torch.equal(after[key], value) for key, value in before.items())
