"""The converters, one file per group of TF ops; importing this package fills `porting.registry.CONVERTERS`.

Code that ports or lists whole models imports it: `porting.conversion` only looks converters up in the registry.
"""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
