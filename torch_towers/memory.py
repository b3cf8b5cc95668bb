"""glibc's allocator keeps what a large batch has freed, for the next op and the next call.

By default it gives memory back to the system as soon as the top of the heap is free, and takes each value above 32 MB from
the system anew. Then every op of a large batch maps its pages again, which takes longer than most ops: half of the time
of a MobileNet over 1,024 rows. Nothing changes under another allocator or C library, or if the user has set this.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT = 256 << 20
"""Free bytes at the top of the heap that are kept."""

MAPPED = 64 << 20
"""Bytes from which a value is taken from the system for itself, and given back when it is freed."""

SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")
"""Variables with which a user sets the same."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep() -> bool:
    """Sets both numbers for this process; returns whether it did. Source: mallopt(3)."""
    if not sys.platform.startswith("linux") or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if any(name in os.environ for name in SETTINGS):
        return False
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):
            return False
        return bool(libc.mallopt(_MMAP_THRESHOLD, MAPPED)) and bool(libc.mallopt(_TRIM_THRESHOLD, KEPT))
    except (OSError, AttributeError):  # no dynamic linking, another C library
        return False
