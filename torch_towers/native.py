"""The native core, where it was built: `core` is the module `torch_towers._native`, or None.

Its functions give True where they did the work. False means that the values are not plain: the Python code does it, and says
what is wrong. The environment variable TORCH_TOWERS_NATIVE=0 leaves the core out.
"""

from __future__ import annotations

import importlib
import os
from typing import Any


def _loaded() -> Any:
    if os.environ.get("TORCH_TOWERS_NATIVE") == "0":
        return None
    try:
        return importlib.import_module("torch_towers._native")
    except ImportError:
        return None


core: Any = _loaded()
