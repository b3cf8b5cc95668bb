"""What a checkpoint may call. Each file holds one family of ops; importing this package fills `registry.OPS`."""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
