"""Two-tower models trained in TensorFlow as native PyTorch: `load`, `TwoTower`, `Tower`, `Index`, and the errors."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch_towers.machine import prepare

if TYPE_CHECKING:
    from torch_towers import layers, ops
    from torch_towers.checkpoint.checkpoint import Side, save_checkpoint
    from torch_towers.errors import CheckpointError, InputError, TorchTowersError
    from torch_towers.ops.control_flow import at_most_steps
    from torch_towers.search.index import Index
    from torch_towers.tower import Tower, TowerSpec
    from torch_towers.two_tower import TwoTower, load

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Index",
    "InputError",
    "Side",
    "TorchTowersError",
    "Tower",
    "TowerSpec",
    "TwoTower",
    "__version__",
    "at_most_steps",
    "layers",
    "load",
    "ops",
    "save_checkpoint",
]

_HOMES = {
    "CheckpointError": "errors", "Index": "search.index", "InputError": "errors", "Side": "checkpoint.checkpoint", "TorchTowersError": "errors",
    "at_most_steps": "ops.control_flow", "Tower": "tower", "TowerSpec": "tower", "TwoTower": "two_tower", "load": "two_tower", "save_checkpoint": "checkpoint.checkpoint",
}  # fmt: skip

prepare()  # before torch is imported


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that `torch-towers --help` answers without importing torch."""
    if name in ("layers", "ops"):
        return _imported(name)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_imported(_HOMES[name]), name)
    globals()[name] = value
    return value


def _imported(name: str) -> ModuleType:
    """Imports the module `name` of this package, with garbage collection off while it imports torch or the ops.

    Imported objects stay alive, so a collection finds nothing. But a full collection visits every object of torch and
    falls due at about this moment: 100 ms, three times the rest of the import. Just delaying it would move it to the
    first `load`, so `gc.freeze` and `gc.unfreeze` move the new objects to the oldest generation instead. The next full
    collection still finds garbage among them. A disabled collector stays disabled, and frozen objects stay frozen.
    """
    module = f"{__name__}.{name}"
    if name == "errors" or f"{__name__}.graph.registry" in sys.modules or not gc.isenabled():
        return importlib.import_module(module)
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
