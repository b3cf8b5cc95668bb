"""A plugin of pytest, `-p tests.sanitized`: the native modules are those that `make test-sanitized` built, with sanitizers inside."""

from pathlib import Path

from hypothesis import HealthCheck, settings

import torch_towers.kernels

settings.register_profile("sanitized", suppress_health_check=[HealthCheck.too_slow], deadline=None)  # all is slower here
settings.load_profile("sanitized")

torch_towers.kernels.__path__.insert(0, str(Path(__file__).parents[1] / "build" / "sanitized" / "torch_towers" / "kernels"))

from torch_towers.kernels import native

assert native.core is not None and "sanitized" in native.core.__file__
assert native.scores is not None and "sanitized" in native.scores.__file__
