"""Opens untrusted files: only regular files of bounded size, and only assets inside their folder."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from porting.errors import CorruptModelError
from torch_towers.checkpoint.recognize import FETCH, MAX_POINTER, POINTER


def regular_file_size(path: Path) -> int:
    """The size of the regular file `path`. Raises CorruptModelError if it is missing or a folder, FIFO or device (which
    could hang)."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise CorruptModelError(f"{path}: missing; the SavedModel is incomplete, copy the whole folder") from None
    except (OSError, ValueError) as error:
        raise CorruptModelError(f"{path}: cannot be read ({error})") from error
    if not stat.S_ISREG(status.st_mode):
        raise CorruptModelError(f"{path}: not a regular file")
    if status.st_size < MAX_POINTER:
        with path.open("rb") as file:
            _refuse_pointer(path, file.read(len(POINTER)))
    return status.st_size


def _refuse_pointer(path: Path, head: bytes) -> None:
    if head.startswith(POINTER):
        raise CorruptModelError(f"{path}: {FETCH}")


def read_regular_file(path: Path, limit: int) -> bytes:
    """The bytes of the regular file `path`. Raises CorruptModelError if it is missing, not regular, or over `limit`
    bytes."""
    size = regular_file_size(path)
    if size > limit:
        raise CorruptModelError(f"{path}: {size} bytes, over the limit of {limit}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptModelError(f"{path}: cannot be read ({error})") from error


def check_asset(directory: Path, name: str) -> Path:
    """The path of the asset `name` (from the model) in `directory`/assets. Raises CorruptModelError.

    The name must stay inside the folder; the file must be regular, with no symbolic link on the way and no other hard
    link.
    """
    where = f"{directory}: asset {name!r}"
    parts = name.split("/")
    if not name or "\0" in name or "\\" in name or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name) or name.startswith("/"):
        raise CorruptModelError(f"{where}: not a plain relative path")
    if any(part in ("", ".", "..") for part in parts):
        raise CorruptModelError(f"{where}: leads out of the assets folder, or is not in its simplest form")
    path = directory / "assets"
    for i, part in enumerate(["", *parts]):
        path = path / part
        try:
            status = path.lstat()
        except FileNotFoundError:
            raise CorruptModelError(
                f"{where}: {path} is missing; copy the whole SavedModel folder, assets included"
            ) from None
        except OSError as error:
            raise CorruptModelError(f"{where}: {path} cannot be read ({error})") from error
        if stat.S_ISLNK(status.st_mode):
            raise CorruptModelError(
                f"{where}: {path} is a symbolic link, expected a file of its own; copy the folder with its links resolved"
            )
        if i < len(parts):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise CorruptModelError(f"{where}: {path} is not a regular file")
        if status.st_nlink != 1:
            raise CorruptModelError(
                f"{where}: {path} has {status.st_nlink} names (hard links), expected one; copy the folder"
            )
    return path


def read_asset(path: Path) -> bytes:
    """The bytes of an asset returned by `check_asset`, which must not have become a link since."""
    try:
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CorruptModelError(f"{path}: not a regular file")
            data = file.read()
    except OSError as error:
        raise CorruptModelError(f"{path}: cannot be read ({error})") from error
    _refuse_pointer(path, data[: len(POINTER)])
    return data
