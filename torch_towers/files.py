"""Folders on disk: read without trusting them, and replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import time
from collections.abc import Generator
from io import BufferedReader
from pathlib import Path
from types import TracebackType

from torch_towers.errors import CheckpointError

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_HANG = getattr(os, "O_NONBLOCK", 0)  # opening a pipe must not wait for somebody to write into it
_RELATIVE = os.open in os.supports_dir_fd


class Folder:
    """A folder opened for reading: its files stay those of one moment, also while another process replaces the folder.

    Links, pipes, devices and paths that leave the folder are refused.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._fd: int | None = None

    def __enter__(self) -> Folder:
        try:
            if _RELATIVE:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            elif not self.path.is_dir():
                raise FileNotFoundError
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(f"{self.path}: there is no such folder") from error
        except OSError as error:
            raise CheckpointError(f"{self.path}: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def open(self, name: str) -> BufferedReader:
        """The regular file `name` ("config.json", "vocabularies/words.txt")."""
        parts = name.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part or ":" in part for part in parts):
            raise CheckpointError(f"{self.path}: the path {name!r} leaves the checkpoint")
        try:
            fd = self._open(parts)
        except OSError as error:
            why = (
                "is a symbolic link; copy the folder with its links resolved"
                if error.errno == errno.ELOOP
                else error.strerror
            )
            raise CheckpointError(f"{self.path / name}: {why}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise CheckpointError(f"{self.path / name} is not a regular file")
        return os.fdopen(fd, "rb")

    def _open(self, parts: list[str]) -> int:
        if self._fd is None:
            return os.open(self.path.joinpath(*parts), os.O_RDONLY | _NO_FOLLOW | _NO_HANG)
        folder = self._fd
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=folder)
            if folder != self._fd:
                os.close(folder)
            folder = inner
        try:
            return os.open(parts[-1], os.O_RDONLY | _NO_FOLLOW | _NO_HANG, dir_fd=folder)
        finally:
            if folder != self._fd:
                os.close(folder)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of the regular file `name`, which may have at most `limit`."""
        with self.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise CheckpointError(
                    f"{self.path / name} has {size} bytes, more than the {limit} that such a file may have"
                )
            data = file.read(limit + 1)
        if len(data) != size:
            raise CheckpointError(f"{self.path / name} changed while it was read: load again")
        return data


@contextlib.contextmanager
def replaced(target: str | os.PathLike[str], marker: str) -> Generator[Path]:
    """A temporary folder beside `target`, which takes its place when the block ends without an error.

    Killed at any moment, this leaves the old folder or none, never a half. The last of several writers wins. A folder that
    does not hold the file `marker` is not replaced: it is somebody's data. Errors: `CheckpointError` where it cannot be written.
    """
    path = Path(os.path.realpath(target))
    try:
        _refuse_foreign(path, marker)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path, "partial") as partial:
            yield partial
            _sync_tree(partial)
            _swap(partial, path, marker)
        _clean(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: could not be written ({error.strerror or error}); what was there is as it was"
        ) from error


def _refuse_foreign(path: Path, marker: str) -> None:
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise CheckpointError(f"{path} is a file, or lies below one: choose another name") from None
    if names and marker not in names:
        raise CheckpointError(f"{path} holds other files and no {marker}: it is not replaced, choose another folder")


def _swap(partial: Path, path: Path, marker: str) -> None:
    """Puts `partial` at `path`. Between two renames there may be no folder at `path`: a loader waits for it a moment."""
    for _ in range(100):
        if _renamed(partial, path):
            break
        _refuse_foreign(path, marker)
        with _beside(path, "old") as old:
            with contextlib.suppress(FileNotFoundError):  # another writer was faster
                os.rename(path, old / "old")
            if _renamed(partial, path):
                break
            with contextlib.suppress(OSError):
                os.rename(old / "old", path)
    else:
        raise OSError(errno.EBUSY, "other writers kept replacing it")
    sync(path.parent)


def _renamed(folder: Path, path: Path) -> bool:
    """Renames, and gives False where something is at `path` already."""
    try:
        os.rename(folder, path)
    except OSError as error:  # another writer may take away in the meantime what was in the way
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or path.exists():
            return False
        raise
    return True


_DEAD = 3600.0  # seconds: a folder of a save that nobody wrote to for so long was left by a killed process


def _clean(path: Path) -> None:
    """Removes what killed writers left beside `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.*"):
        with contextlib.suppress(FileNotFoundError):
            if left.suffix in (".partial", ".old") and time.time() - left.stat().st_mtime > _DEAD:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _beside(path: Path, kind: str) -> Generator[Path]:
    """A new hidden folder beside `path`, removed after use, unless `path` itself is gone and this holds the old one."""
    folder = path.with_name(f".{path.name}.{os.urandom(4).hex()}.{kind}")
    folder.mkdir()
    try:
        yield folder
    finally:
        if kind == "partial" or path.exists():
            shutil.rmtree(folder, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    """Every file of the folder on the disk, not only in the system's memory."""
    for root, _, files in os.walk(folder):
        for name in files:
            fd = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync(Path(root))


def sync(path: Path) -> None:
    """The file or folder on the disk, not only in the system's memory."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
