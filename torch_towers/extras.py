"""Optional packages: imported on first use; the error names the extra that installs them."""

from __future__ import annotations

import importlib
from typing import Any

from torch_towers.errors import TorchTowersError

_PACKAGES = {
    "google": "protobuf",
    "PIL": "pillow",
    "faiss": "faiss-cpu",
}  # modules named differently from their package


def need(module: str, extra: str) -> Any:
    """Imports `module`, or raises an error that says how to install it. Call it with literals only, never with data."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _PACKAGES.get(module.partition(".")[0], module.partition(".")[0])
        raise TorchTowersError(
            f"{package} is needed for this and is not installed: pip install 'torch-towers[{extra}]'"
        ) from error
