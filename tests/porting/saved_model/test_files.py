"""Assets stay in their folder; nothing but regular files is opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from porting.errors import CorruptModelError
from porting.saved_model.files import check_asset, read_asset, read_regular_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "assets" / "deep").mkdir(parents=True)
    (folder / "assets" / "vocabulary.txt").write_bytes(b"a\n")
    (folder / "assets" / "deep" / "v.txt").write_bytes(b"b\n")
    (tmp_path / "secret").write_bytes(b"secret\n")
    return folder


def test_good_assets(model: Path) -> None:
    assert read_asset(check_asset(model, "vocabulary.txt")) == b"a\n"
    assert read_asset(check_asset(model, "deep/v.txt")) == b"b\n"


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../secret", "../../secret", "deep/../../secret", "deep/../vocabulary.txt", "/etc/passwd", "//etc/passwd", "C:\\x", "c:/x",
        "..\\secret", "deep\\v.txt", "file:///etc/passwd", "gs://bucket/x", "vocabulary.txt\0", "\0", "deep//v.txt", "./vocabulary.txt", "deep/",
        "missing.txt", "deep", "vocabulary.txt/x", "~root/x", "x" * 5000,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(model: Path, name: str) -> None:
    with pytest.raises(CorruptModelError, match="asset"):
        check_asset(model, name)


def test_links_and_special_files_are_refused(model: Path) -> None:
    assets = model / "assets"
    (assets / "link").symlink_to(model.parent / "secret")
    (assets / "inside").symlink_to(assets / "vocabulary.txt")
    (assets / "folder").symlink_to(model.parent)
    os.link(model.parent / "secret", assets / "hard")
    os.mkfifo(assets / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        current = Path.cwd()
        os.chdir(assets)  # the path of a socket is short
        try:
            server.bind("socket")
        finally:
            os.chdir(current)
        for name in ("link", "inside", "folder/secret", "hard", "fifo", "socket"):
            with pytest.raises(CorruptModelError, match="asset"):
                check_asset(model, name)


def test_a_linked_assets_folder_is_refused(model: Path) -> None:
    (model / "assets").rename(model / "elsewhere")
    (model / "assets").symlink_to(model / "elsewhere")
    with pytest.raises(CorruptModelError, match="symbolic link"):
        check_asset(model, "vocabulary.txt")


def test_an_asset_that_becomes_a_link_is_not_followed(model: Path) -> None:
    path = check_asset(model, "vocabulary.txt")
    path.unlink()
    path.symlink_to(model.parent / "secret")
    with pytest.raises(CorruptModelError, match="cannot be read"):
        read_asset(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CorruptModelError, match="regular"):
        read_asset(path)


def test_size_is_checked_before_reading(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptModelError, match="1099511627776 bytes, over the limit of 10"):
        read_regular_file(tmp_path / "big", 10)
    with pytest.raises(CorruptModelError, match="missing"):
        read_regular_file(tmp_path / "none", 10)
    with pytest.raises(CorruptModelError, match="regular"):
        read_regular_file(tmp_path, 10)
