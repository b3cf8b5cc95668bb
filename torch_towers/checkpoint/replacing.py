"""Atomic replacement of folders, only if they are ours: no user data is lost."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

from torch_towers.checkpoint.folder import Folder, check_local, sync
from torch_towers.errors import CheckpointError, TorchTowersError

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")

Listing = Callable[[Path], set[str]]
"""Lists the files and folders of a folder that are ours, as relative paths; empty if the folder is not ours."""


@contextlib.contextmanager
def replaced(target: str | os.PathLike[str], listing: Listing) -> Generator[Path]:
    """A temporary folder beside `target`, which replaces it if the block succeeds.

    A kill at any moment leaves the old folder or none, never a partial one; if none, `opened` and the next `replaced`
    restore the old one. The last of several writers wins. A folder with anything that its `listing` does not name is
    user data, and is not replaced. Errors: `CheckpointError` with the file if it cannot be written.
    """
    path = check_target(target, listing)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial(path) as partial:
            try:
                yield partial
                _sync_tree(partial)
            except OSError as error:
                raise CheckpointError(_unwritten(error, partial, path)) from error
            _swap(partial, path, listing)
        _clean(path)
    except OSError as error:
        raise CheckpointError(_unwritten(error, path, path)) from error


def check_target(target: str | os.PathLike[str], listing: Listing) -> Path:
    """Checks, before long work, that `replaced` may write this folder; returns its path. Errors: `CheckpointError`."""
    check_local(target)
    path = Path(os.path.realpath(target))
    try:
        _put_back(path)
        _refuse_foreign(path, listing)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return path


def opened(path: str | os.PathLike[str], read: Callable[[Folder], _Value]) -> _Value:
    """Reads the folder; retries if another process replaces it meanwhile, and recovers it after a killed save.

    Errors: `CheckpointError`.
    """
    for _ in range(50):
        before = _identity(path)
        try:
            with Folder(path) as folder:
                return _read(folder, read)
        except CheckpointError:
            writers = any(_left(Path(path)))  # checked first: a finished writer has put its folder in place
            if _identity(path) == before and (before is not None or not writers):
                raise
            time.sleep(0.01)  # another process is replacing the folder
    if _identity(path) is not None:
        raise CheckpointError(
            f"{path}: was replaced repeatedly while it was loaded: load again when no process writes it"
        )
    _put_back(Path(os.path.realpath(path)))
    with Folder(path) as folder:
        return _read(folder, read)


def _read(folder: Folder, read: Callable[[Folder], _Value]) -> _Value:
    """Calls `read`; turns an unexpected Python exception into a `CheckpointError` about the folder."""
    try:
        return read(folder)
    except TorchTowersError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError, MemoryError) as error:
        why = f"{type(error).__name__}: {error}"[:300]
        raise CheckpointError(f"{folder.path}: was changed or damaged: it cannot be read ({why})") from error


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns


def _unwritten(error: OSError, folder: Path, path: Path) -> str:
    name = "" if error.filename is None else os.path.relpath(error.filename, folder)
    inside = path / name if name and not name.startswith("..") else Path(error.filename or path)
    return f"{inside}: could not be written ({error.strerror or error}); the previous contents are unchanged"


def _refuse_foreign(path: Path, listing: Listing) -> None:
    try:
        os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise CheckpointError(f"{path} is a file, or lies below one: choose another name") from None
    before = None
    while (now := _identity(path)) is not None and now != before:  # otherwise another writer is replacing it
        before, foreign = now, _foreign(path, listing)
        if foreign is not None and _identity(path) == now:
            raise CheckpointError(
                f"{path} holds {foreign!r}, which this kind of save does not write: the folder is not replaced, choose another"
            )


def _foreign(path: Path, listing: Listing) -> str | None:
    """A file in the folder that is not ours; None if there is none, or if the folder is being moved."""
    try:
        names = os.listdir(path)
        ours = listing(path) if names else set[str]()
        return next((entry for entry in _entries(path) if entry not in ours), None)
    except FileNotFoundError:
        return None


def _entries(folder: Path, prefix: str = "") -> Generator[str]:
    """Everything in the folder as relative paths; folders (not links to them) end in "/"."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield f"{prefix}{entry.name}/"
            yield from _entries(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def _swap(partial: Path, path: Path, listing: Listing) -> None:
    """Moves `partial` to `path`. Between the two renames no folder exists at `path`; loaders wait for a moment."""
    for _ in range(100):
        if _renamed(partial, path):
            break
        _refuse_foreign(path, listing)
        if _exchanged(partial, path):
            break
    else:
        raise OSError(errno.EBUSY, "other writers kept replacing it")
    sync(path.parent)


def _exchanged(partial: Path, path: Path) -> bool:
    """Moves the folder at `path` aside and `partial` there; if another writer was faster, restores it and returns
    False."""
    aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.old")
    aside.mkdir()
    done = False
    try:
        with contextlib.suppress(FileNotFoundError):  # another writer was faster
            os.rename(path, aside / "old")
        done = _renamed(partial, path)
        return done
    finally:
        if not done:
            with contextlib.suppress(OSError):
                os.rename(aside / "old", path)
        # Also remove it if a third writer has just moved aside what is at `path`. A folder named .partial is useless;
        # one named .old may be restored.
        spent = done or not (aside / "old").exists()
        if spent or path.exists():
            waste = aside.with_suffix(".partial")
            with contextlib.suppress(FileNotFoundError):  # whoever restored the old folder has removed it
                os.rename(aside, waste)
            shutil.rmtree(waste, ignore_errors=True)


def _renamed(folder: Path, path: Path) -> bool:
    """Renames; returns False if `path` exists."""
    try:
        os.rename(folder, path)
    except OSError as error:  # another writer may remove the obstacle meanwhile
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or path.exists():
            return False
        raise
    return True


def _left(path: Path) -> Generator[Path]:
    """Temporary folders beside `path` of active or killed writers."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.(partial|old)")
    with contextlib.suppress(OSError, ValueError):
        for name in os.listdir(path.parent):
            if pattern.fullmatch(name):
                yield path.parent / name


def _put_back(path: Path) -> None:
    """Restores a folder that a writer moved aside before it was killed between its two renames, and logs it."""
    if os.path.lexists(path):
        return
    olds = [left / "old" for left in _left(path) if left.suffix == ".old" and (left / "old").is_dir()]
    if not olds:
        return
    old = max(olds, key=lambda found: found.parent.stat().st_mtime)
    try:
        os.rename(old, path)
        old.parent.rmdir()
    except OSError as error:
        if path.exists():
            return  # another process was faster
        raise CheckpointError(
            f"{path}: a save was killed and left the folder as {old}: rename that to {path} ({error.strerror})"
        ) from error
    _log.warning("%s was restored: a killed save had left it as %s", path, old)


_DEAD = 3600.0  # seconds without a write after which a temporary folder counts as left by a killed process


def _clean(path: Path) -> None:
    """Removes what killed writers left beside `path`."""
    for left in _left(path):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _DEAD:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _partial(path: Path) -> Generator[Path]:
    """A new hidden folder beside `path`, removed afterwards."""
    folder = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    """Flushes every file of the folder to disk."""
    for root, _, files in os.walk(folder):
        for name in files:
            fd = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync(Path(root))
