"""Garbage: objects that stay are not searched for it again and again while rows come and go, a third of a bulk job's time."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def set_aside() -> Generator[None]:
    """The collector leaves out the objects that are here now, and takes them back afterwards. What is frozen already stays so."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
