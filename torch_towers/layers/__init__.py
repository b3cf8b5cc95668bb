"""The modules that a checkpoint may contain, one file per family; importing this package fills `registry.MODULES`."""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
