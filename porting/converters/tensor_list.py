"""TensorList and TensorArray. A TensorArray's handle is known at port time; its elements are carried by the flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Constant, Sizes, Value
from porting.errors import PortingError

Emit = ConvertingEmitter


@dataclass(frozen=True)
class TensorArray:
    """The port-time value of a TensorArray's handle: the spec of its elements."""

    dtype: str
    shape: tuple[int, ...] | None
    dynamic: bool


def _shape(operand: Any) -> tuple[int, ...] | None:
    """The shape of elements: -1 is a free size; None for a scalar -1 and for a shape of computed rank."""
    if isinstance(operand, Sizes):
        return (
            tuple(item if isinstance(item, int) else -1 for item in operand.items.tolist())
            if operand.items.ndim
            else None
        )
    if isinstance(operand, Constant) and len(operand.shape) == 1:
        return tuple(int(size) for size in operand.python())
    if (
        isinstance(operand, Value)
        and operand.shape is not None
        and len(operand.shape) == 1
        and isinstance(operand.shape[0], int)
    ):
        return (-1,) * operand.shape[0]
    return None


def _of_attr(shape: Any) -> tuple[int, ...] | None:
    return None if shape is None else tuple(-1 if size is None else size for size in shape)


def _size(size: Any) -> Any:
    """A number of elements as a single operand."""
    return size.items.item() if isinstance(size, Sizes) else size


# -- TensorList ---------------------------------------------------------------------------------------------------------


@converter("TensorListReserve", ignores=("element_dtype", "shape_type"))
def reserve(t: Emit, element_shape: Any, size: Any) -> Any:
    return t.list_reserve(_size(size))


@converter("EmptyTensorList", ignores=("element_dtype", "shape_type"))
def empty(t: Emit, element_shape: Any, most: Any) -> Any:
    return t.list_reserve(0)


@converter("TensorListFromTensor", ignores=("element_dtype", "shape_type"))
def from_tensor(t: Emit, x: Any, element_shape: Any) -> Any:
    return t.list_from_tensor(t.tensor(x))


@converter("TensorListScatter", ignores=("element_dtype", "shape_type"))
def scatter(t: Emit, x: Any, indices: Any, element_shape: Any) -> Any:
    return t.list_scatter(x, indices, None, 0)


@converter("TensorListScatterV2", ignores=("element_dtype", "shape_type"))
def scatter_v2(t: Emit, x: Any, indices: Any, element_shape: Any, size: Any) -> Any:
    return t.list_scatter(x, indices, None, _size(size))


@converter("TensorListScatterIntoExistingList", ignores=("element_dtype",))
def scatter_into(t: Emit, items: Any, x: Any, indices: Any) -> Any:
    return t.list_scatter(x, indices, items, 0)


@converter("TensorListSetItem", ignores=("element_dtype",))
def set_item(t: Emit, items: Any, index: Any, value: Any, *, resize_if_index_out_of_bounds: bool = False) -> Any:
    return t.list_set(items, _size(index), t.tensor(value), grow=bool(resize_if_index_out_of_bounds))


@converter("TensorListGetItem")
def get_item(t: Emit, items: Any, index: Any, element_shape: Any, *, element_dtype: str) -> Any:
    return t.list_get(items, _size(index), dtype=element_dtype, shape=_shape(element_shape))


@converter("TensorListLength")
def length(t: Emit, items: Any) -> Any:
    return t.list_length(items)


@converter("TensorListPushBack", ignores=("element_dtype",))
def push_back(t: Emit, items: Any, value: Any) -> Any:
    return t.list_append(items, t.tensor(value))


@converter("TensorListPopBack", outputs=("output_handle", "tensor"))
def pop_back(t: Emit, items: Any, element_shape: Any, *, element_dtype: str) -> Any:
    return t.list_pop(items, dtype=element_dtype, shape=_shape(element_shape))


@converter("TensorListResize")
def resize(t: Emit, items: Any, size: Any) -> Any:
    length = _size(size)
    known = length.python() if isinstance(length, Constant) else length
    if isinstance(known, int) and known < 0:
        raise PortingError(f"TensorListResize {t.scope!r}: expects size to be non-negative, and it is {known}")
    return t.list_resize(items, length)


@converter("TensorListConcatLists", ignores=("element_dtype",))
def concat_lists(t: Emit, first: Any, second: Any) -> Any:
    return t.list_extend(first, second)


@converter("TensorListStack", ignores=("num_elements",))
def stack(t: Emit, items: Any, element_shape: Any, *, element_dtype: str) -> Any:
    return t.list_stack(items, dtype=element_dtype, shape=_shape(element_shape))


@converter("TensorListGather")
def gather(t: Emit, items: Any, indices: Any, element_shape: Any, *, element_dtype: str) -> Any:
    return t.list_gather(items, indices, dtype=element_dtype, shape=_shape(element_shape))


@converter("TensorListConcat", outputs=("tensor", "lengths"))
def concat(t: Emit, items: Any, *, element_dtype: str, element_shape: Any = None) -> Any:
    return t.list_concat(items, dtype=element_dtype, shape=_of_attr(element_shape))


@converter("TensorListConcatV2", outputs=("tensor", "lengths"), ignores=("shape_type",))
def concat_v2(t: Emit, items: Any, element_shape: Any, leading_dims: tuple[int, ...], *, element_dtype: str) -> Any:
    return t.list_concat(items, dtype=element_dtype, shape=_shape(element_shape), lengths=leading_dims)


@converter("TensorListSplit", ignores=("element_dtype", "shape_type"))
def split(t: Emit, x: Any, element_shape: Any, lengths: Any) -> Any:
    return t.list_split(x, lengths)


# -- TensorArray --------------------------------------------------------------------------------------------------------


@converter(
    "TensorArrayV3",
    outputs=("handle", "flow"),
    ignores=("clear_after_read", "identical_element_shapes", "tensor_array_name"),
)
def tensor_array(t: Emit, size: Any, *, dtype: str, element_shape: Any = None, dynamic_size: bool = False) -> Any:
    return TensorArray(dtype, _of_attr(element_shape), bool(dynamic_size)), t.list_reserve(_size(size))


@converter("TensorArrayWriteV3")
def write(t: Emit, array: TensorArray, index: Any, value: Any, flow: Any) -> Any:
    return t.list_set(flow, _size(index), t.tensor(value), grow=array.dynamic)


@converter("TensorArrayReadV3", ignores=("dtype",))
def read(t: Emit, array: TensorArray, index: Any, flow: Any) -> Any:
    return t.list_get(flow, _size(index), dtype=array.dtype, shape=array.shape)


@converter("TensorArrayGatherV3", ignores=("dtype",))
def array_gather(t: Emit, array: TensorArray, indices: Any, flow: Any, *, element_shape: Any = None) -> Any:
    shape = array.shape if array.shape is not None else _of_attr(element_shape)
    return t.list_gather(flow, t.tensor(indices), dtype=array.dtype, shape=shape)


@converter("TensorArrayScatterV3")
def array_scatter(t: Emit, array: TensorArray, indices: Any, value: Any, flow: Any) -> Any:
    return t.list_scatter(t.tensor(value), t.tensor(indices), flow, 0)


@converter("TensorArraySizeV3")
def array_size(t: Emit, array: TensorArray, flow: Any) -> Any:
    return t.list_length(flow)


@converter("TensorArrayConcatV3", outputs=("value", "lengths"), ignores=("dtype", "element_shape_except0"))
def array_concat(t: Emit, array: TensorArray, flow: Any) -> Any:
    return t.list_concat(flow, dtype=array.dtype, shape=array.shape)


@converter("TensorArraySplitV3")
def array_split(t: Emit, array: TensorArray, value: Any, lengths: Any, flow: Any) -> Any:
    return t.list_split(t.tensor(value), t.tensor(lengths))
