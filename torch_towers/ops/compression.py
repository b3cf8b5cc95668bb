"""Strings unpacked."""

from __future__ import annotations

import zlib

import numpy as np

from torch_towers.errors import InputError
from torch_towers.graph.registry import Strings, elementwise, op

_HEADERS = {"ZLIB": zlib.MAX_WBITS, "GZIP": zlib.MAX_WBITS | 16}


@op(stage="host", infer=elementwise())
def decompress(x: Strings, *, kind: str) -> Strings:
    """Every string unpacked, `kind` "ZLIB" or "GZIP": `[...] -> [...]`. Errors: `InputError` for what is not packed so.

    Source: tf.raw_ops.DecodeCompressed.
    """
    out = np.empty(x.shape, object)
    for place, item in np.ndenumerate(x):
        try:
            out[place] = zlib.decompress(item, _HEADERS[kind])
        except zlib.error as error:
            raise InputError(f"element {list(place)} is not {kind} data: {error}") from error
    return out
