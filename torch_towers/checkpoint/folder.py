"""Reading folders and files without trust; `replacing.py` writes them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Generator
from io import BufferedReader
from pathlib import Path
from types import TracebackType

from torch_towers.checkpoint.recognize import FETCH, MAX_POINTER, POINTER, recognized
from torch_towers.errors import CheckpointError

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NO_HANG = getattr(os, "O_NONBLOCK", 0)  # opening a pipe must not block until somebody writes to it
_RELATIVE = os.open in os.supports_dir_fd


class Folder:
    """A folder opened for reading: a consistent snapshot, even if another process replaces the folder.

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
            raise CheckpointError(f"{self.path}: {absent(self.path)}") from error
        except ValueError as error:
            raise CheckpointError(f"{os.fspath(self.path)!r}: a path cannot hold a NUL character") from error
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
        file = os.fdopen(fd, "rb")
        if os.fstat(fd).st_size < MAX_POINTER and file.peek(len(POINTER)).startswith(POINTER):
            file.close()
            raise CheckpointError(f"{self.path / name} {FETCH}")
        return file

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
                raise CheckpointError(f"{self.path / name} has {size} bytes, more than the limit of {limit}")
            data = file.read(size + 1)  # not `limit`, which would allocate that much memory
        if len(data) != size:
            raise CheckpointError(f"{self.path / name} changed while it was read: load again")
        return data


def sync(path: Path) -> None:
    """Flushes a file or folder to disk (fsync)."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def writing(path: Path) -> Generator[None]:
    """Adds the path to errors of writing a file: the system's error for a full disk does not name it."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """A temporary file beside `path`, renamed to `path` if the block succeeds, else removed."""
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


_STORE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a single letter before the colon is a drive


def check_local(path: str | os.PathLike[str]) -> None:
    """Refuses paths that are not local (`gs://bucket/towers` would create a folder named "gs:") or contain NUL.
    `CheckpointError`."""
    given = os.fsdecode(path)
    if _STORE.match(given):
        given = re.sub(":/+", "://", given, count=1)  # `Path` collapses slashes
        raise CheckpointError(
            f"{given}: object stores are not supported: use a local path, and copy the folder there or from it"
        )
    if "\0" in given:
        raise CheckpointError(f"{given!r}: a path cannot hold a NUL character")


def absent(path: Path) -> str:
    """The reason why there is no folder at `path`."""
    if _STORE.match(str(path)):
        return "object stores are not supported: copy the folder to this machine"
    return f"is a file, where a folder is expected{recognized(path)}" if path.is_file() else "there is no such folder"
