"""Unique names: a number behind a name that somebody has already."""

from __future__ import annotations

import itertools
from collections.abc import Callable


def numbered(wanted: str, clashes: Callable[[str], bool], start: int = 1) -> str:
    """`wanted`, or the first of `"wanted_2"`, `"wanted_3"`, ... that does not clash. `start` skips the numbers below it."""
    names = (wanted if count == 1 else f"{wanted}_{count}" for count in itertools.count(start))
    return next(name for name in names if not clashes(name))
