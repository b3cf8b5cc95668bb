"""The native code, where it was built: `core` is the module `torch_towers.kernels._native`, `scores` the module of exact search, or None.

The core's functions give True where they did the work. False means that the values are not plain: the Python code does it, and
says what is wrong.

The environment variable TORCH_TOWERS_NATIVE, read once, says what may run: `0` none of it, `c` what every processor runs, `avx2` or
`avx512` at most these instructions. Without it: all that this processor has. So one machine can test what others will run.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

KERNELS = ("c", "avx2", "avx512")
"""The kinds of exact search, by their numbers in `native/scores.c`; processors run the first one to three of them."""


def _asked() -> str:
    asked = os.environ.get("TORCH_TOWERS_NATIVE") or KERNELS[-1]
    if asked not in ("0", "1", *KERNELS):
        raise ValueError(f"TORCH_TOWERS_NATIVE is {asked!r}: it can be 0, {', '.join(KERNELS)}")
    return KERNELS[-1] if asked == "1" else asked


def _loaded(name: str) -> Any:
    if allowed == "0":
        return None
    try:
        return importlib.import_module(f"torch_towers.kernels.{name}")
    except ImportError:
        return None


allowed = _asked()
core: Any = _loaded("_native")
scores: Any = _loaded("_scores")
kernel = -1 if scores is None else min(KERNELS.index(allowed), scores.kernels - 1)
"""The number of the kind that exact search runs."""
