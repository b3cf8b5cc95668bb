"""Packages that only some uses need: imported when they are, and named with the extra that brings them."""

from __future__ import annotations

import importlib
from typing import Any

from torch_towers.errors import TorchTowersError

_PACKAGES = {"google": "protobuf", "PIL": "pillow", "faiss": "faiss-cpu"}  # whose modules have other names


def need(module: str, extra: str) -> Any:
    """The module `module`, or an error that says how to install it. Call it with literals only, never with data."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _PACKAGES.get(module.partition(".")[0], module.partition(".")[0])
        raise TorchTowersError(
            f"{package} is needed for this and is not installed: pip install 'torch-towers[{extra}]'"
        ) from error
