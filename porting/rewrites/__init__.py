"""The rewrites, one file per layer; importing this package fills `porting.lifting.registry.REWRITES`, in order."""

import importlib
import pkgutil

from porting.lifting.registry import REWRITES

ORDER = (
    "identities",
    "tensor_arrays",
    "shortcuts",
    "recurrent",
    "group_norm",
    "unrolled",
    "images",
    "conv",
    "zero_padding",
    "interaction",
    "linear",
    "einsum_dense",
    "einsum",
    "repeats",
    "rotary",
    "attention",
    "plain_attention",
    "partitions",
    "embedding_bag",
    "embedding",
    "positions",
    "pooling",
    "norms",
    "rms",
    "pools",
    "activations",
    "upsampling",
    "rescaling",
    "lookups",
    "text",
    "buckets",
    "sentencepiece",
    "integer_ranges",
    "row_partitions",
    "steps",
    "maps",
)
"""The files in execution order: identities (including those of images) before layers, group norms before the layers
whose sizes they read, lookups before the text around them."""

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
for _name in (
    *ORDER,
    *sorted(REWRITES.keys() - set(ORDER)),
):  # a listed file without rewrites is an error
    REWRITES[_name] = REWRITES.pop(_name)
