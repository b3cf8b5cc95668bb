"""A plugin of pytest, `-p tests.sanitized`: uses the native modules that `make test-sanitized` built with sanitizers."""

import importlib
from pathlib import Path

import torch_towers.kernels

BUILT = Path(__file__).parents[1] / "build" / "sanitized" / "torch_towers" / "kernels"
torch_towers.kernels.__path__.insert(0, str(BUILT))
native = importlib.import_module("torch_towers.kernels.native")
assert all(str(BUILT) in module.__file__ for module in (native.core, native.scores, native.layers))
