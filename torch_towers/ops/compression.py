"""Decompression of strings."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

from torch_towers.errors import InputError
from torch_towers.graph.registry import Strings, elementwise, op

_HEADERS = {"ZLIB": zlib.MAX_WBITS, "GZIP": zlib.MAX_WBITS | 16}
_MAX_BYTES = 64 << 20  # of a string, as of one that is joined


@op(stage="host", infer=elementwise())
def decompress(x: Strings, *, kind: Literal["ZLIB", "GZIP"]) -> Strings:
    """Decompresses every string, `kind` "ZLIB" or "GZIP": `[...] -> [...]`. Errors: `InputError` for invalid data, or a
    string that unfolds to over 64 MB.

    Source: tf.raw_ops.DecodeCompressed.
    """
    out = np.empty(x.shape, object)
    for place, item in np.ndenumerate(x):
        stream = zlib.decompressobj(_HEADERS[kind])
        try:
            out[place] = stream.decompress(item, _MAX_BYTES + 1)
        except zlib.error as error:
            raise InputError(f"element {list(place)} is not {kind} data: {error}") from error
        if len(out[place]) > _MAX_BYTES:
            raise InputError(f"element {list(place)} decompresses to more than the limit of {_MAX_BYTES} bytes")
        if not stream.eof:
            raise InputError(f"element {list(place)} is not {kind} data: it is truncated")
    return out
