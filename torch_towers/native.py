"""The native code, where it was built: `core` is the module `torch_towers._native`, `linear` a function for dense layers,
`scores` the module of exact search, or None.

The core's functions give True where they did the work. False means that the values are not plain: the Python code does it, and
says what is wrong. The environment variable TORCH_TOWERS_NATIVE=0 leaves all of it out.
"""

from __future__ import annotations

import importlib
import os
from typing import Any


def _loaded(name: str) -> Any:
    if os.environ.get("TORCH_TOWERS_NATIVE") == "0":
        return None
    try:
        return importlib.import_module(f"torch_towers.{name}")
    except ImportError:
        return None


core: Any = _loaded("_native")

_linear = _loaded("_linear")
linear: Any = _linear.linear if _linear is not None and _linear.supported else None

scores: Any = _loaded("_scores")
