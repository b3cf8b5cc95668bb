"""The folder on the disk: regular files only, nothing beside them, and a disk that is full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.torch_towers.checkpoint.test_checkpoint import fork, refused
from tests.torch_towers.towers import (
    two_towers,
)
from torch_towers import CheckpointError, load


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabularies/query.table.keys.txt"])
def test_links_pipes_folders_and_missing_files(saved: Path, tmp_path: Path, name: str) -> None:
    file, kept = saved / name, tmp_path / "kept"
    shutil.move(file, kept)
    refused(saved, "No such file")
    file.symlink_to(kept)
    refused(saved, "symbolic link")
    file.unlink()
    os.mkfifo(file)
    refused(saved, "not a regular file")  # and does not hang
    file.unlink()
    file.mkdir()
    refused(saved, "not a regular file")


def test_a_linked_vocabularies_folder(saved: Path, tmp_path: Path) -> None:
    shutil.move(saved / "vocabularies", tmp_path / "elsewhere")
    (saved / "vocabularies").symlink_to(tmp_path / "elsewhere")
    refused(saved, "symbolic link|Not a directory")


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "there is no such folder")
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "is a file, where a folder is expected")
    refused(tmp_path, "config.json: No such file")


def test_what_lies_beside_is_never_opened(saved: Path) -> None:
    for name in ("pytorch_model.bin", "model.pkl", "model.pt2", "config.py"):
        os.mkfifo(saved / name)  # to open one would hang
    load(saved)


def test_a_full_disk_leaves_the_old_checkpoint(saved: Path, tmp_path: Path) -> None:
    import resource
    import signal

    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}

    def save() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))  # every write beyond fails, as on a full disk
        try:
            two_towers().save(saved)
        except CheckpointError as error:
            os._exit(
                42 if f"{saved / 'model.safetensors'}: could not be written (File too large)" in str(error) else 43
            )

    assert fork(save) == 42
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
