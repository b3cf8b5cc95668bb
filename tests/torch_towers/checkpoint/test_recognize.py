"""Other files and folders are identified, with advice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.torch_towers.checkpoint.test_replacing import save_index, save_towers
from torch_towers import CheckpointError, Index, load

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
PACKAGES = Path(__file__).parents[3] / "examples" / "packages"


@pytest.mark.parametrize("read", [load, Index.load])
@pytest.mark.parametrize("files, said", [
    ({"saved_model.pb": b"", "variables/variables.index": b""}, "this is a TensorFlow SavedModel: port it first .torch-towers port"),
    ({"config.json": b'{"model_type": "bert"}', "model.safetensors": b""}, "this is a Hugging Face model: load it with"),
    ({"model.keras": b"PK"}, "a Keras model, model.keras"),
    ({"checkpoint": b""}, "a TensorFlow checkpoint"),
    ({"notes.txt": b""}, "No such file or directory$"),
])  # fmt: skip
def test_folders_of_others(tmp_path: Path, read: Callable[[Path], Any], files: dict[str, bytes], said: str) -> None:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=said):
        read(tmp_path)


@pytest.mark.parametrize("read", [load, Index.load])
def test_files_of_others(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        CheckpointError, match=r"a folder is expected: this is a zip archive; if it is a \.keras file, load it in"
    ):
        read(tmp_path / "model.keras")


def test_an_index_is_no_towers_nor_the_other_way_round(tmp_path: Path) -> None:
    save_towers(tmp_path / "towers")
    save_index(tmp_path / "index")
    with pytest.raises(CheckpointError, match=r"this is an index of torch_towers: torch_towers\.Index\.load reads it"):
        load(tmp_path / "index")
    with pytest.raises(CheckpointError, match=r"this is a checkpoint of torch_towers.*torch_towers\.load reads it"):
        Index.load(tmp_path / "towers")
    (tmp_path / "towers" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is not the config\.json of a torch_towers checkpoint$"):
        load(tmp_path / "towers")


def test_git_lfs_pointers_in_place_of_files(tmp_path: Path) -> None:
    for save, read in ((save_towers, load), (save_index, Index.load)):
        save(tmp_path / "c")
        for path in sorted(tmp_path.rglob("*")):
            if path.is_dir() or path.name in ("MODEL.md", "parity.json"):
                continue
            before = path.read_bytes()
            path.write_bytes(POINTER)
            with pytest.raises(CheckpointError, match=rf"{path.name} is a git-lfs pointer.*run `git lfs pull`"):
                read(tmp_path / "c")
            path.write_bytes(before)
        read(tmp_path / "c")
        for path in sorted((tmp_path / "c").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
