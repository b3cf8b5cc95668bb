"""The machine as this process may use it, told to OpenMP before torch is imported: how threads wait, and how many there are.

OpenMP reads its environment when torch is imported, and not again. Threads that spin while they wait take the processor from those
that they wait for, wherever another process runs too: so they sleep. A container with a quota of processor time has as many threads
as the quota pays for: OpenMP knows the processors that a process may run on (its affinity mask), but not the quota, and more threads
than that are stopped together for most of each period. Both are left alone where the user has said something, or has imported torch
before; `restore` takes the variables out of the environment again, so that other programs do not inherit them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables of which any says how threads wait."""

_set: list[str] = []


def prepare() -> None:
    """Sets the variables, where torch is not imported and the user has not set them."""
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in WAITING):
        _put("OMP_WAIT_POLICY", "PASSIVE")
    allowed = quota()
    if "OMP_NUM_THREADS" not in os.environ and allowed is not None and allowed < _processors():
        _put("OMP_NUM_THREADS", str(max(1, int(allowed))))


def restore() -> None:
    """Takes out of the environment what `prepare` has put there."""
    while _set:
        os.environ.pop(_set.pop(), None)


def quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """How many processors' time this process may take at most, by its control groups; None where nothing limits it.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max), scheduler/sched-bwc.rst (cpu.cfs_quota_us).
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        group = base / path.lstrip("/")
        folders = [group, *(parent for parent in group.parents if base == parent or base in parent.parents), base]
        found += filter(None, map(_limit, folders))
    return min(found, default=None)


def _limit(folder: Path) -> float | None:
    """The limit of one control group, of either version."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            given, period = " ".join((folder / name).read_text() for name in names).split()
            if given != "max" and float(given) > 0:
                return float(given) / float(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None


def _put(name: str, value: str) -> None:
    os.environ[name] = value
    _set.append(name)


def _processors() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
