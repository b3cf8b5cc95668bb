"""A folder is replaced only if everything in it is ours; a save killed between its renames loses nothing."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.torch_towers.checkpoint.test_checkpoint import fork
from tests.torch_towers.towers import ROWS, two_towers
from torch_towers import CheckpointError, Index, load
from torch_towers.checkpoint.checkpoint import own_files
from torch_towers.checkpoint.replacing import check_target

Save = Callable[[Path], None]


def save_towers(path: Path) -> None:
    two_towers().save(path)


def save_index(path: Path) -> None:
    Index(torch.eye(3), ["a", "b", "c"], attributes={"size": [1, 2, 3]}).save(path)


def save_numbered_index(path: Path) -> None:
    Index(torch.eye(3)).save(path)


SAVES = [save_towers, save_index, save_numbered_index]
WRITERS = pytest.mark.parametrize("save", SAVES)


def contents(path: Path) -> dict[str, bytes | None]:
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() and not file.is_symlink() else None
        for file in path.rglob("*")
    }


def put(path: Path, name: str) -> None:
    """A file of the user's, an empty folder ("name/") or a link ("name@")."""
    place = path / name.rstrip("/@")
    place.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        place.mkdir()
    elif name.endswith("@"):
        place.symlink_to(path / "config.json")
    else:
        place.write_bytes(b"mine")


@WRITERS
@pytest.mark.parametrize("name", [
    "train.py", ".git/config", "notes/", "vocabularies/mine.txt", "pytorch_model.bin", "z.txt", "ids.txt.bak", "link@", ".hidden",
])  # fmt: skip
def test_one_file_of_the_users_is_enough(tmp_path: Path, save: Save, name: str) -> None:
    path = tmp_path / "c"
    save(path)
    put(path, name)
    before = contents(path)
    first = min(Path(name.rstrip("@")).parents, key=lambda p: len(p.parts) or 9).name or name.rstrip("@")
    with pytest.raises(CheckpointError, match=rf"holds '{first.rstrip('/')}.*not replaced, choose another"):
        save(path)
    assert contents(path) == before
    assert [item.name for item in tmp_path.iterdir()] == ["c"]


@WRITERS
@pytest.mark.parametrize("name", ["config.json", "index.json"])
@pytest.mark.parametrize(
    "content", ["{}", '{"model_type": "bert"}', "[]", "null", "not JSON", '{"format": "torch_towers"}']
)
def test_the_name_of_a_file_makes_no_checkpoint(tmp_path: Path, save: Save, name: str, content: str) -> None:
    """A repository with a config.json of its own; a Hugging Face model."""
    path = tmp_path / "model"
    path.mkdir()
    (path / name).write_text(content)
    (path / "model.safetensors").write_bytes(b"weights")
    before = contents(path)
    with pytest.raises(CheckpointError, match=f"holds '({name}|model.safetensors)'"):
        save(path)
    assert contents(path) == before


@WRITERS
@pytest.mark.parametrize("other", SAVES)
def test_an_index_is_not_put_over_towers_nor_the_other_way_round(tmp_path: Path, save: Save, other: Save) -> None:
    path = tmp_path / "c"
    other(path)
    before = contents(path)
    if (save is save_towers) == (other is save_towers):
        save(path)
        if save is other:
            assert contents(path) == before
    else:
        with pytest.raises(CheckpointError, match="holds"):
            save(path)
        assert contents(path) == before


@WRITERS
def test_a_damaged_folder_of_ours_can_be_written_anew(tmp_path: Path, save: Save) -> None:
    path = tmp_path / "c"
    save(path)
    before = contents(path)
    next(path.glob("*.safetensors")).unlink()
    save(path)
    assert contents(path) == before


def read(path: Path) -> Any:
    return (
        load(path).encode_query(ROWS) if (path / "config.json").exists() or "towers" in path.name else Index.load(path)
    )


def kill_between_the_renames(path: Path, save: Save) -> None:
    """Saves over `path` in a process that dies when the old folder is aside and the new one not yet there."""
    import sys

    def die_at_the_second(event: str, args: Any) -> None:
        if event == "os.rename" and not path.exists():
            os._exit(9)

    def action() -> None:
        sys.addaudithook(die_at_the_second)
        save(path)

    assert fork(action) == 9
    assert not path.exists()


@pytest.mark.parametrize("save, name", [(save_towers, "towers"), (save_index, "index")])
@pytest.mark.parametrize("then", ["load", "save"])
def test_what_a_kill_left_aside_is_put_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, save: Save, name: str, then: str
) -> None:
    path = tmp_path / name
    save(path)
    before = contents(path)
    kill_between_the_renames(path, save)
    with caplog.at_level(logging.WARNING):
        (read if then == "load" else save)(path)
    assert f"{path} was restored: a killed save had left it as" in caplog.text
    assert contents(path) == before


def test_what_a_kill_left_aside_outlives_a_save_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "towers"
    save_towers(path)
    before = contents(path)
    kill_between_the_renames(path, save_towers)
    with pytest.raises(CheckpointError, match=r"holds 'MODEL\.md', which this kind"):
        save_index(path)
    assert contents(path) == before


def test_where_it_cannot_be_put_back_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "towers"
    save_towers(path)
    kill_between_the_renames(path, save_towers)

    def refuse(*names: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(CheckpointError, match=r"a save was killed and left the folder as .*\.old/old: rename that to"):
        load(path)


def test_hidden_folders_of_the_users_are_not_taken_for_what_a_kill_left(tmp_path: Path) -> None:
    for name in (".towers.v1.old", ".towers.backup.partial", ".towers.12345678.old.txt"):
        (tmp_path / name / "old").mkdir(parents=True)
        (tmp_path / name / "old" / "mine.txt").write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load(tmp_path / "towers")
    save_towers(tmp_path / "towers")
    assert len(list(tmp_path.glob(".towers.*/old/mine.txt"))) == 3


@WRITERS
@pytest.mark.parametrize("path, message", [
    ("gs://bucket/towers", "gs://bucket/towers: object stores are not supported"),
    (Path("s3://bucket/towers"), "s3://bucket/towers: object stores are not supported"),
    ("a\0b", "cannot hold a NUL character"),
])  # fmt: skip
def test_what_is_no_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save, path: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        save(path)
    for reader in (load, Index.load):
        with pytest.raises(CheckpointError, match=r"stores are not supported|NUL"):
            reader(path)
    assert list(tmp_path.iterdir()) == []


@WRITERS
def test_a_full_disk_names_the_file(tmp_path: Path, save: Save) -> None:
    import resource
    import signal

    said = tmp_path / "said.txt"
    said.touch()
    handle = os.open(said, os.O_WRONLY)

    def action() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))  # every write beyond fails, as on a full disk
        try:
            save(tmp_path / "c")
        except CheckpointError as error:
            os.write(handle, str(error).encode()[-120:])

    assert fork(action) == 0
    os.close(handle)
    assert re.search(r"/c/(model\.safetensors|index\.\w+): could not be written \(File too large\)", said.read_text())


def test_another_writer_puts_back_what_this_one_has_just_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the save for killed. The save tries again, and leaves nothing beside."""
    path = tmp_path / "c"
    save_towers(path)
    rename, met = os.rename, []

    def renamed(source: Any, target: Any) -> None:
        rename(source, target)
        if Path(target).name == "old" and not met:
            met.append(target)
            check_target(path, own_files)

    monkeypatch.setattr(os, "rename", renamed)
    save_towers(path)
    assert met and [item.name for item in tmp_path.iterdir()] == ["c"]
    assert torch.equal(load(path).encode_query(ROWS), two_towers().encode_query(ROWS))
