"""Decodes the messages of a GraphDef to plain Python: shapes, tensors, attributes, nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from porting.errors import CorruptModelError, PortingError
from porting.saved_model.dtypes import DType, dtype_of
from porting.saved_model.packed import packed_lengths, packed_strings
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.graph import Node

_MAX_EXPANDED = (
    1 << 27
)  # byte limit for repeating the last value of a constant; a splat of a single value is never expanded


@dataclass(frozen=True, slots=True)
class FunctionRef:
    """An attribute of type func: the name of a library function, and the attributes to instantiate it with."""

    name: str
    attrs: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class AttrPlaceholder:
    """An attribute whose value comes from the function's caller: "$T" is `AttrPlaceholder("T")`."""

    name: str


def decode_shape(shape: Any, where: str) -> tuple[int | None, ...] | None:
    """The sizes of a TensorShapeProto; None for an unknown size, and None for an unknown rank."""
    if shape.unknown_rank:
        return None
    sizes = tuple(dim.size for dim in shape.dim)
    if any(size < -1 for size in sizes):
        raise CorruptModelError(f"{where}: shape {list(sizes)}, expected no size below -1 (which stands for unknown)")
    return tuple(None if size == -1 else size for size in sizes)


def static_shape(shape: Any, where: str) -> tuple[int, ...]:
    """The sizes of a TensorShapeProto, which must all be known."""
    sizes = tuple(dim.size for dim in shape.dim)
    if shape.unknown_rank or any(size < 0 for size in sizes):
        raise CorruptModelError(
            f"{where}: shape {'of unknown rank' if shape.unknown_rank else list(sizes)}, expected sizes of 0 or more"
        )
    if math.prod(max(size, 1) for size in sizes) >= 1 << 63:
        raise CorruptModelError(f"{where}: shape {list(sizes)}, expected fewer than 2**63 elements")
    return sizes


def decode_tensor(proto: Any, where: str) -> np.ndarray | torch.Tensor:
    """The value of a TensorProto: a read-only numpy array; strings are an object array of bytes; dtypes that numpy
    lacks (bfloat16, float8) a torch tensor.

    A single value for a large shape stays a broadcast view. Raises CorruptModelError if the data does not match dtype
    and shape.
    """
    dtype = dtype_of(proto.dtype, where)
    shape = static_shape(proto.tensor_shape, where)
    count = math.prod(shape)
    if proto.tensor_content:
        if dtype.name == "string":
            return _wrap(_packed_strings(proto.tensor_content, count, where).reshape(shape), dtype)
        if not dtype.itemsize or not _is_numeric(dtype):
            raise PortingError(f"{where}: tensor_content of dtype {dtype.name}, which is not supported")
        if len(proto.tensor_content) != count * dtype.itemsize:
            raise CorruptModelError(
                f"{where}: {len(proto.tensor_content)} bytes of tensor_content, expected {count * dtype.itemsize} for {dtype.name} {list(shape)}"
            )
        return _wrap(np.frombuffer(proto.tensor_content, _storage(dtype)).reshape(shape), dtype)
    values = _values(proto, dtype, where)
    if values.size > count:
        raise CorruptModelError(f"{where}: {values.size} values, expected at most {count} for shape {list(shape)}")
    if values.size == 0:  # TensorFlow omits the values of an all-zero tensor
        values = np.array([b""], object) if dtype.name == "string" else np.zeros(1, values.dtype)
    if count * max(dtype.itemsize, 16) >= 1 << 63:
        raise CorruptModelError(f"{where}: one value for shape {list(shape)}, expected fewer than 2**63 bytes")
    if values.size == 1 or count == 0:
        return _wrap(
            np.broadcast_to(values[:1].reshape(()), shape), dtype
        )  # not values[0]: numpy would make bytes a fixed-width string
    if values.size < count:  # the last value repeats
        if count * max(dtype.itemsize, 8) > _MAX_EXPANDED:
            raise PortingError(
                f"{where}: {values.size} values for shape {list(shape)}, refused to expand a constant to over {_MAX_EXPANDED} bytes"
            )
        values = np.concatenate([values, np.broadcast_to(values[-1:], (count - values.size,))])
    return _wrap(values.reshape(shape), dtype)


def _packed_strings(content: bytes, count: int, where: str) -> np.ndarray:
    """Strings in tf.data's format."""
    at = total = 0
    for lengths, end in packed_lengths(content, count, where):
        at = end
        total += int(lengths.sum())
    if total != len(content) - at:
        raise CorruptModelError(f"{where}: {len(content) - at} bytes of strings, expected {total}")
    return packed_strings(content, at, (block for block, _ in packed_lengths(content, count, where)), count)


def _is_numeric(dtype: DType) -> bool:
    return (dtype.numpy is not None and not dtype.numpy.hasobject) or dtype.torch is not None


def _storage(dtype: DType) -> np.dtype:
    return dtype.numpy if dtype.numpy is not None else np.dtype(f"<u{dtype.itemsize}")


def _wrap(array: np.ndarray, dtype: DType) -> np.ndarray | torch.Tensor:
    """`array` read-only, or, for a dtype that numpy lacks, a torch tensor with the same bits."""
    if dtype.numpy is not None:
        array = array.view()
        array.flags.writeable = False
        return array
    assert dtype.torch is not None
    if array.size > 1 and not any(array.strides):
        return torch.from_numpy(array[(slice(0, 1),) * array.ndim].copy()).view(dtype.torch).expand(array.shape)
    return torch.from_numpy(array.copy()).view(dtype.torch)


def _values(proto: Any, dtype: DType, where: str) -> np.ndarray:
    """The flat values of a TensorProto that are not in tensor_content."""
    name = dtype.name
    if name == "string":
        return strings(list(proto.string_val))
    if not _is_numeric(dtype):
        raise PortingError(f"{where}: a constant of dtype {name}, which is not supported")
    if name in ("float16", "bfloat16"):
        return _integers(proto.half_val, np.dtype("<u2"), where).view(_storage(dtype))
    if name.startswith("float8"):
        return np.frombuffer(proto.float8_val, np.uint8)
    if name.startswith("complex"):
        parts = np.array(
            proto.scomplex_val if name == "complex64" else proto.dcomplex_val, "<f4" if name == "complex64" else "<f8"
        )
        if parts.size % 2:
            raise CorruptModelError(f"{where}: {parts.size} real and imaginary parts, expected an even number")
        return parts.view(_storage(dtype))
    fields = {
        "float32": "float_val",
        "float64": "double_val",
        "int64": "int64_val",
        "bool": "bool_val",
        "uint32": "uint32_val",
        "uint64": "uint64_val",
    }
    field_values = getattr(proto, fields.get(name, "int_val"))
    return np.array(field_values, dtype.numpy) if name in fields else _integers(field_values, _storage(dtype), where)


def _integers(values: Iterable[int], dtype: np.dtype, where: str) -> np.ndarray:
    wide = np.array(values, np.int64)
    narrow = wide.astype(dtype)
    if not np.array_equal(wide, narrow):
        raise CorruptModelError(f"{where}: values from {wide.min()} to {wide.max()} do not fit {dtype.name}")
    return narrow


def decode_attr(value: Any, where: str) -> Any:
    """The plain Python value of an AttrValue."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "list":
        filled = [(field.name, items) for field, items in value.list.ListFields()]
        if len(filled) > 1:
            raise CorruptModelError(
                f"{where}: a list of {' and '.join(name for name, _ in filled)} at once, expected one kind"
            )
        return tuple(_decode_one(name, item, where) for name, items in filled for item in items)
    return _decode_one(kind, getattr(value, kind), where)


def _decode_one(kind: str, value: Any, where: str) -> Any:
    if kind == "type":
        return dtype_of(value, where).name
    if kind == "shape":
        return decode_shape(value, where)
    if kind == "tensor":
        return decode_tensor(value, where)
    if kind == "func":
        return FunctionRef(value.name, {name: decode_attr(value.attr[name], where) for name in value.attr})
    if kind == "placeholder":
        return AttrPlaceholder(value)
    return value


def decode_node(proto: Any, where: str) -> Node:
    """The Node of a NodeDef, its attributes as plain Python values."""
    where = f"{where}: node '{proto.name}' ({proto.op})"
    return Node(
        proto.name,
        proto.op,
        tuple(proto.input),
        {name: decode_attr(proto.attr[name], f"{where}, attr '{name}'") for name in proto.attr},
    )
