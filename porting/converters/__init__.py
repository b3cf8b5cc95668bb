"""The converters. Each file holds one group of TF ops; importing this package fills `porting.registry.CONVERTERS`.

What ports or lists a whole model imports it: `porting.conversion` looks converters up and knows none of them.
"""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
