"""OpenMP settings made before torch is imported: waiting threads sleep, and a CPU quota limits their number.

OpenMP reads its environment once, when torch is imported. Threads that spin while they wait take CPU time from the
threads they wait for when other processes run too, so they sleep instead. OpenMP respects the affinity mask but not the
CPU quota of a container; with more threads than the quota pays for, the scheduler throttles all of them for most of
each period. Nothing is changed if the user has set these variables or has already imported torch. `restore` removes the
variables again, so that child processes do not inherit them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that set how threads wait."""

_set: list[str] = []


def prepare() -> None:
    """Sets the variables unless torch is imported or the user has set them."""
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in WAITING):
        _put("OMP_WAIT_POLICY", "PASSIVE")
    allowed = quota()
    if "OMP_NUM_THREADS" not in os.environ and allowed is not None and allowed < _processors():
        _put("OMP_NUM_THREADS", str(max(1, int(allowed))))


def restore() -> None:
    """Removes what `prepare` has set from the environment."""
    while _set:
        os.environ.pop(_set.pop(), None)


def quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The number of CPUs that this process's control groups allow; None without a limit.

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
    """The limit of one control group (v1 or v2)."""
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
    """The number of CPUs in this process's affinity mask."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
