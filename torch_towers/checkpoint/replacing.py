"""Folders replaced as a whole or not at all, and only where they are ours: nothing of the user's is lost."""

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
"""The files and folders in a folder that are ours by its own listing, as paths relative to it; none where it is no folder of ours."""


@contextlib.contextmanager
def replaced(target: str | os.PathLike[str], listing: Listing) -> Generator[Path]:
    """A temporary folder beside `target`, which takes its place when the block ends without an error.

    Killed at any moment, this leaves the old folder or none, never a half; where it leaves none, `opened` and the next `replaced`
    put the old one back. The last of several writers wins. A folder that holds anything which its `listing` does not name is not
    replaced: it is somebody's data. Errors: `CheckpointError` where it cannot be written, naming the file.
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
    """The path of a folder that `replaced` would write: to be asked before long work. Errors: `CheckpointError`."""
    check_local(target)
    path = Path(os.path.realpath(target))
    try:
        _put_back(path)
        _refuse_foreign(path, listing)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return path


def opened(path: str | os.PathLike[str], read: Callable[[Folder], _Value]) -> _Value:
    """What `read` gives of the folder: read again where another process replaces it meanwhile, and put back where one was killed.

    Errors: `CheckpointError`.
    """
    for _ in range(50):
        before = _identity(path)
        try:
            with Folder(path) as folder:
                return _read(folder, read)
        except CheckpointError:
            writers = any(_left(Path(path)))  # asked first: a writer that is done has put its folder there
            if _identity(path) == before and (before is not None or not writers):
                raise
            time.sleep(0.01)  # another process puts a new folder there right now
    if _identity(path) is not None:
        raise CheckpointError(f"{path}: is replaced again and again while it is loaded")
    _put_back(Path(os.path.realpath(path)))
    with Folder(path) as folder:
        return _read(folder, read)


def _read(folder: Folder, read: Callable[[Folder], _Value]) -> _Value:
    """What `read` gives; where it ends in an error of Python's own, which no check foresaw, that is one of the folder."""
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
    return f"{inside}: could not be written ({error.strerror or error}); what was there is as it was"


def _refuse_foreign(path: Path, listing: Listing) -> None:
    try:
        os.listdir(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise CheckpointError(f"{path} is a file, or lies below one: choose another name") from None
    before = None
    while (now := _identity(path)) is not None and now != before:  # else another writer puts its folder there right now
        before, foreign = now, _foreign(path, listing)
        if foreign is not None and _identity(path) == now:
            raise CheckpointError(
                f"{path} holds {foreign!r}, which this kind of save does not write: the folder is not replaced, choose another"
            )


def _foreign(path: Path, listing: Listing) -> str | None:
    """What the folder holds beside its own files; None where there is nothing, or the folder is just being moved aside."""
    try:
        names = os.listdir(path)
        ours = listing(path) if names else set[str]()
        return next((entry for entry in _entries(path) if entry not in ours), None)
    except FileNotFoundError:
        return None


def _entries(folder: Path, prefix: str = "") -> Generator[str]:
    """Everything in the folder, as paths relative to it; a folder (not a link to one) ends in "/"."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield f"{prefix}{entry.name}/"
            yield from _entries(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def _swap(partial: Path, path: Path, listing: Listing) -> None:
    """Puts `partial` at `path`. Between two renames there may be no folder at `path`: a loader waits for it a moment."""
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
    """Moves the folder at `path` aside and puts `partial` there; False, with the old folder back, where another writer was faster."""
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
        # Spent also where yet another writer has just moved aside what is at `path`. What is named .partial is of no use to
        # anybody; what is named .old may be put back.
        spent = done or not (aside / "old").exists()
        if spent or path.exists():
            waste = aside.with_suffix(".partial")
            with contextlib.suppress(FileNotFoundError):  # whoever put the old folder back has removed it
                os.rename(aside, waste)
            shutil.rmtree(waste, ignore_errors=True)


def _renamed(folder: Path, path: Path) -> bool:
    """Renames, and gives False where something is at `path` already."""
    try:
        os.rename(folder, path)
    except OSError as error:  # another writer may take away in the meantime what was in the way
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or path.exists():
            return False
        raise
    return True


def _left(path: Path) -> Generator[Path]:
    """What writers that are at work, or were killed, have beside `path`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.(partial|old)")
    with contextlib.suppress(OSError, ValueError):
        for name in os.listdir(path.parent):
            if pattern.fullmatch(name):
                yield path.parent / name


def _put_back(path: Path) -> None:
    """Where a writer was killed between its two renames, the folder that it had moved aside is put back, and that is said."""
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
            f"{path}: a save was killed, and left the folder as {old}: rename that to {path} ({error.strerror})"
        ) from error
    _log.warning("%s was put back: a save that was killed had left it as %s", path, old)


_DEAD = 3600.0  # seconds: a folder of a save that nobody wrote to for so long was left by a killed process


def _clean(path: Path) -> None:
    """Removes what killed writers left beside `path`."""
    for left in _left(path):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _DEAD:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _partial(path: Path) -> Generator[Path]:
    """A new hidden folder beside `path`, removed after use."""
    folder = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    folder.mkdir()
    try:
        yield folder
    finally:
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
