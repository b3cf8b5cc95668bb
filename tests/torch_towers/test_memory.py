"""Freed memory stays with the process where glibc allocates, up to a bound, unless the user has set otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from torch_towers import memory

ROOT = Path(__file__).parents[2]
LOADED = "import torch_towers.kernels.threads"  # what every tower imports
GLIBC = platform.libc_ver()[0] == "glibc"

FAULTS = """
import ctypes, resource, sys
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def written(size):
    values = [libc.malloc(size) for _ in range(4)]
    for value in values:
        ctypes.memset(value, 1, size)
    for value in values:
        libc.free(value)

written({size})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
written({size})
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str, size: int, **environment: str) -> int:
    """The pages that four values map, which is what they did a moment before, in a new process."""
    kept = {name: value for name, value in os.environ.items() if name not in (*memory.SETTINGS, "GLIBC_TUNABLES")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(first=first, size=size)], cwd=ROOT, capture_output=True, text=True,
        env={**kept, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_freed_memory_is_used_again() -> None:
    size, pages = 40 << 20, 4 * (40 << 20) // (2 << 20)  # if pages are huge, there are as few as this
    assert faults("", size) >= pages
    assert faults(LOADED, size) < pages // 2
    assert faults(LOADED, memory.MAPPED + 1) >= pages, "what is larger goes back to the system"


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_what_the_user_said_stays() -> None:
    size, pages = 40 << 20, 4 * (40 << 20) // (2 << 20)
    assert faults(LOADED, size, MALLOC_TRIM_THRESHOLD_="131072") >= pages
    assert faults(LOADED, size, GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072") >= pages


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep()
