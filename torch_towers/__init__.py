"""Two-tower models trained in TensorFlow, as native PyTorch: `load`, `TwoTower`, `Tower`, and the errors."""

from torch_towers import layers, ops  # fill the closed tables
from torch_towers.checkpoint import Side, save_checkpoint
from torch_towers.errors import CheckpointError, InputError, TorchTowersError
from torch_towers.tower import Tower, TowerSpec
from torch_towers.two_tower import TwoTower, load

__all__ = [
    "CheckpointError",
    "InputError",
    "Side",
    "TorchTowersError",
    "Tower",
    "TowerSpec",
    "TwoTower",
    "layers",
    "load",
    "ops",
    "save_checkpoint",
]
