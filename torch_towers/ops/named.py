"""Every op as an attribute, `named.top_k(x, 5)`, for the files that `torch-towers source` writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_towers.graph.registry import OPS


def __getattr__(name: str) -> Callable[..., Any]:
    try:
        return OPS[name].function
    except KeyError:
        raise AttributeError(f"torch_towers has no op {name!r}") from None
