"""The porter's errors. Each message is one sentence: what, where, why, and what to do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from torch_towers.errors import TorchTowersError


class PortingError(TorchTowersError):
    """A SavedModel cannot be ported as asked."""


class CorruptModelError(PortingError):
    """A file of the SavedModel is damaged, contradicts itself, or is not what it claims to be."""


class DrawsError(PortingError):
    """The outputs depend on random numbers that are drawn at each call."""


@contextmanager
def naming(path: Path, what: str) -> Generator[None]:
    """The boundary of an entry point: adds the file to our errors, and turns unexpected exceptions into ours.

    `what` is the participle of the action: "read".
    """
    try:
        yield
    except TorchTowersError as error:
        if str(path) not in str(error):
            error.args = (f"{path}: {error}",)
        raise
    except (
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        MemoryError,
        AssertionError,
    ) as error:
        why = f"{type(error).__name__}: {error}"[:300]
        raise CorruptModelError(
            f"{path}: cannot be {what} ({why}): it contradicts itself, or holds what the porter does not support yet"
        ) from error
