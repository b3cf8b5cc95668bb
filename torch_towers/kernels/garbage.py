"""Garbage collection without the long-lived objects: rescanning them takes a third of a bulk job's time."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def set_aside() -> Generator[None]:
    """Freezes all current objects and unfreezes them afterwards. Objects that are already frozen stay frozen."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
