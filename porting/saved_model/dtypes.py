"""TensorFlow's data types: enum values in the protos, and the matching numpy and torch types."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from porting.errors import CorruptModelError


class DType(NamedTuple):
    """One data type. `numpy` and `torch` are None if the library lacks it; `itemsize` is 0 for variable-size types."""

    name: str
    proto: str
    itemsize: int
    numpy: np.dtype | None
    torch: torch.dtype | None


def _dtype(name: str, proto: str, itemsize: int = 0, numpy: str | None = None) -> DType:
    kind = getattr(torch, name, None)
    return DType(
        name, proto, itemsize, np.dtype(numpy) if numpy else None, kind if isinstance(kind, torch.dtype) else None
    )


_VALUES = {
    1: _dtype("float32", "DT_FLOAT", 4, "<f4"),
    2: _dtype("float64", "DT_DOUBLE", 8, "<f8"),
    3: _dtype("int32", "DT_INT32", 4, "<i4"),
    4: _dtype("uint8", "DT_UINT8", 1, "u1"),
    5: _dtype("int16", "DT_INT16", 2, "<i2"),
    6: _dtype("int8", "DT_INT8", 1, "i1"),
    7: _dtype("string", "DT_STRING", 0, "O"),
    8: _dtype("complex64", "DT_COMPLEX64", 8, "<c8"),
    9: _dtype("int64", "DT_INT64", 8, "<i8"),
    10: _dtype("bool", "DT_BOOL", 1, "?"),
    11: DType("qint8", "DT_QINT8", 1, None, None),
    12: DType("quint8", "DT_QUINT8", 1, None, None),
    13: DType("qint32", "DT_QINT32", 4, None, None),
    14: _dtype("bfloat16", "DT_BFLOAT16", 2),
    15: DType("qint16", "DT_QINT16", 2, None, None),
    16: DType("quint16", "DT_QUINT16", 2, None, None),
    17: _dtype("uint16", "DT_UINT16", 2, "<u2"),
    18: _dtype("complex128", "DT_COMPLEX128", 16, "<c16"),
    19: _dtype("float16", "DT_HALF", 2, "<f2"),
    20: DType("resource", "DT_RESOURCE", 0, None, None),
    21: DType("variant", "DT_VARIANT", 0, None, None),
    22: _dtype("uint32", "DT_UINT32", 4, "<u4"),
    23: _dtype("uint64", "DT_UINT64", 8, "<u8"),
    24: _dtype("float8_e5m2", "DT_FLOAT8_E5M2", 1),
    25: _dtype("float8_e4m3fn", "DT_FLOAT8_E4M3FN", 1),
    26: _dtype("float8_e4m3fnuz", "DT_FLOAT8_E4M3FNUZ", 1),
    27: DType("float8_e4m3b11fnuz", "DT_FLOAT8_E4M3B11FNUZ", 1, None, None),
    28: _dtype("float8_e5m2fnuz", "DT_FLOAT8_E5M2FNUZ", 1),
    29: DType("int4", "DT_INT4", 1, None, None),
    30: DType("uint4", "DT_UINT4", 1, None, None),
    31: DType("int2", "DT_INT2", 1, None, None),
    32: DType("uint2", "DT_UINT2", 1, None, None),
    33: DType("float4_e2m1fn", "DT_FLOAT4_E2M1FN", 1, None, None),
}
# A reference dtype (mutable variables of TF1) reads as the plain dtype.
_REFERENCES = {number + 100: dtype._replace(proto=dtype.proto + "_REF") for number, dtype in _VALUES.items()}
DTYPES = {0: DType("invalid", "DT_INVALID", 0, None, None)} | _VALUES | _REFERENCES


def dtype_of(number: int, where: str) -> DType:
    """The data type of an enum value. Raises CorruptModelError for an unknown one."""
    if number not in DTYPES:
        raise CorruptModelError(
            f"{where}: dtype number {number}, expected one of TensorFlow's (1 to 33, or 101 to 133 for references)"
        )
    return DTYPES[number]
