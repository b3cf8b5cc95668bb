"""The ops that a checkpoint may call, one file per family; importing this package fills `registry.OPS`."""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
