"""The rewrites. Each file holds those of one layer; importing this package fills `porting.lifting.registry.REWRITES`, in order."""

import importlib
import pkgutil

from porting.lifting.registry import REWRITES

ORDER = (
    "identities",
    "recurrent",
    "images",
    "conv",
    "linear",
    "einsum",
    "rotary",
    "attention",
    "embedding",
    "positions",
    "pooling",
    "norms",
    "rms",
    "activations",
    "lookups",
    "text",
    "buckets",
    "sentencepiece",
    "integer_ranges",
)
"""The files in the order in which they run: identities (those of images too) make way for layers, lookups for the text around them."""

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
for _name in (
    *ORDER,
    *sorted(REWRITES.keys() - set(ORDER)),
):  # a file that is named here and has no rewrite is an error
    REWRITES[_name] = REWRITES.pop(_name)
