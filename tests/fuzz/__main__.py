"""`python -m tests.fuzz --seconds 3600`: every target for its share of the time, two at a time; prints the findings, and exits with 1 if there are any."""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.harness import fuzz

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))


def hunt(target: str, seconds: int) -> list[str]:
    """All findings of a target in its time: after a crash it is restarted."""
    found: list[str] = []
    end = time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 0 and len(found) < 20:
        found += fuzz(f"tests.fuzz.{target}", seconds=left, seed=random.randrange(1 << 30))
    print(f"{target}: {len(found)} findings", *found, sep="\n  ", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3600, help="of all of it")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("targets", nargs="*", default=TARGETS)
    given = parser.parse_args()
    share = max(1, given.seconds * given.processes // len(given.targets))
    with ThreadPoolExecutor(given.processes) as pool:
        found = list(pool.map(lambda target: hunt(target, share), given.targets))
    sys.exit(any(found))


if __name__ == "__main__":
    main()
