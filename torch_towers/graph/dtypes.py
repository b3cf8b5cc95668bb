"""TensorFlow's dtype names and the matching torch dtypes."""

from __future__ import annotations

from typing import Annotated

import torch

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "bool": torch.bool,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}
DTYPE_NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}
ROW_DTYPES = frozenset(TORCH_DTYPES) | {"string"}
"""What a tower is given: values inside it may also be sizes and lists."""
Dtype = Annotated[str, TORCH_DTYPES.__contains__]
"""An attribute of an op: the name of a dtype that torch holds."""
AnyDtype = Annotated[str, (TORCH_DTYPES.keys() | {"string", "variant"}).__contains__]
"""The same, where strings and lists of tensors are welcome too."""
FLOATS = ("float16", "bfloat16", "float32", "float64")


def torch_dtype(name: str) -> torch.dtype:
    """`"float32"` -> `torch.float32`; KeyError for "string" and other dtypes that torch lacks."""
    return TORCH_DTYPES[name]


def dtype_name(value: object) -> str:
    """The name of a runtime value's dtype: "float32" for a tensor, "string" for an array of bytes, "size" for an
    int."""
    if isinstance(value, torch.Tensor):
        return DTYPE_NAMES[value.dtype]
    if isinstance(value, list):
        return "variant"
    return "size" if isinstance(value, int) else "string"
