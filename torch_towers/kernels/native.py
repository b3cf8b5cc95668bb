"""The native code, if built from the sources of today: `core` is the module `torch_towers.kernels._native`, `scores` that
of exact search, `layers` that of small layers; else None.

The core's functions return True if they did the work. False means unusual values: the caller falls back to Python,
which also reports errors.

The environment variable TORCH_TOWERS_NATIVE, read once, limits what may run: `0` nothing, `c` portable C, `avx2` or
`avx512` at most these instructions. The default is all that the processor supports. So one machine can test what others
will run.
"""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any
from zlib import crc32

KERNELS = ("c", "avx2", "avx512")
"""The variants of exact search and of small layers, indexed as in `native/scores.c`; a processor runs the first one to
three of them."""


def _asked() -> str:
    asked = os.environ.get("TORCH_TOWERS_NATIVE") or KERNELS[-1]
    if asked not in ("0", "1", *KERNELS):
        raise ValueError(f"TORCH_TOWERS_NATIVE is {asked!r}: it can be 0, {', '.join(KERNELS)}")
    return KERNELS[-1] if asked == "1" else asked


def loaded(name: str, sources: str) -> Any:
    """The native module, or None: not allowed, not built, or built from other sources than those beside the package."""
    if allowed == "0":
        return None
    try:
        module = importlib.import_module(f"torch_towers.kernels.{name}")
    except ImportError:
        return None
    files = sorted((Path(__file__).parents[2] / "native").glob(sources))  # there are none but in a checkout
    if files and getattr(module, "sources", None) != crc32(b"".join(file.read_bytes() for file in files)):
        warnings.warn(
            f"{module.__file__} was built from other sources, so slower Python code runs instead: build it again with "
            "`python setup.py build_ext --inplace --force`",
            stacklevel=2,
        )
        return None
    return module


allowed = _asked()
core: Any = loaded("_native", "core/*.[ch]")
scores: Any = loaded("_scores", "scores.[ch]")
layers: Any = loaded("_layers", "layers.[ch]")
_kernels = min((module.kernels for module in (scores, layers) if module is not None), default=0)
kernel = min(KERNELS.index(allowed), _kernels - 1) if _kernels else -1
"""The index of the variant that exact search and small layers run."""
