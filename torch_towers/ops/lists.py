"""TensorFlow's TensorList and TensorArray as Python lists. An element that was never written is None.

Lists are immutable values: an op returns a new list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import AnyDtype, torch_dtype
from torch_towers.graph.registry import Number, Spec, Strings, op, returns

List = list[Any]
Shape = tuple[int, ...] | None
"""The shape of the elements: -1 is a free size, None an unknown rank."""

_MAX_LENGTH = 1 << 24
_LIST = returns(("variant", ()))


def _element(*operands: Any, dtype: str, shape: Shape) -> list[Spec]:
    return [(dtype, _free(shape))]


def _stacked(*operands: Any, dtype: str, shape: Shape) -> list[Spec]:
    return [(dtype, None if shape is None else (None, *(_free(shape) or ())))]


def _joined(*operands: Any, dtype: str, shape: Shape, **attrs: Any) -> list[Spec]:
    known = None if shape is None else (None, *(_free(shape) or ())[1:])
    return [(dtype, known), ("int64", (None,))]


def _popped(*operands: Any, dtype: str, shape: Shape) -> list[Spec]:
    return [("variant", ()), (dtype, _free(shape))]


def _free(shape: Shape) -> tuple[int | None, ...] | None:
    return None if shape is None else tuple(None if size < 0 else size for size in shape)


def _bounded(size: Number) -> int:
    """Checks the length of a list: at most 128 MB of pointers."""
    if int(size) > _MAX_LENGTH:
        raise InputError(f"a list of {int(size)} tensors, more than the limit of {_MAX_LENGTH}")
    return int(size)


@op(stage="early", infer=_LIST)
def list_reserve(size: Number) -> List:
    """A list of `size` unwritten elements. Source: tf.raw_ops.TensorListReserve, TensorArrayV3."""
    if int(size) < 0:
        raise InputError(f"The num_elements to reserve must be a non negative number, but got {int(size)}")
    return [None] * _bounded(size)


@op(stage="early", infer=_LIST)
def list_from_tensor(x: Tensor | Strings) -> List:
    """The rows of a tensor: `[n, ...] -> n of [...]`. Source: tf.raw_ops.TensorListFromTensor, TensorArrayUnstack."""
    if x.ndim == 0:
        raise InputError("a list of tensors is made of rows, but a scalar was given")
    return [_item(x, i) for i in range(x.shape[0])]


def _item(x: Any, index: int) -> Any:
    """One row; a string scalar stays an array."""
    return x[index] if isinstance(x, Tensor) else np.asarray(x[index : index + 1]).reshape(x.shape[1:])


@op(stage="early", infer=_LIST)
def list_scatter(x: Tensor | Strings, indices: Tensor, items: List | None, size: Number) -> List:
    """Writes the rows of `x` at `indices` into `items` (None: an empty list), which grows to hold them and `size`
    elements.

    Source: tf.raw_ops.TensorListScatterV2, TensorListScatterIntoExistingList, TensorArrayScatterV3.
    """
    places = _integers(indices)
    length = max([int(size), len(items or ()), *[place + 1 for place in places]])
    result = [*(items or ()), *[None] * (length - len(items or ()))]
    for row, place in enumerate(places):
        result[_checked(place, length)] = _item(x, row)
    return result


@op(stage="early", infer=_LIST)
def list_set(items: List, index: Number, value: Any, *, grow: bool = False) -> List:
    """`items` with `value` at `index`. `grow`: extends the list if needed.

    Source: tf.raw_ops.TensorListSetItem, TensorArrayWriteV3.
    """
    place = int(index)
    result = [*items, *[None] * (place + 1 - len(items))] if grow else list(items)
    result[_checked(place, len(result))] = value
    return result


@op(stage="early", infer=_element)
def list_get(items: List, index: Number, *, dtype: AnyDtype, shape: Shape) -> Any:
    """The element at `index`; zeros if it was never written. Source: tf.raw_ops.TensorListGetItem,
    TensorArrayReadV3."""
    value = items[_checked(int(index), len(items))]
    return _zeros(_shape_among(items, shape), dtype) if value is None else value


@op(stage="early", infer=returns(("int32", ())))
def list_length(items: List) -> Tensor:
    """The number of elements: `n of [...] -> []` int32. Source: tf.raw_ops.TensorListLength, TensorArraySizeV3."""
    return torch.tensor(len(items), dtype=torch.int32)


@op(stage="early", infer=_LIST)
def list_append(items: List, value: Any) -> List:
    """`items` with one more element. Source: tf.raw_ops.TensorListPushBack."""
    return [*items, value]


@op(stage="early", infer=_popped)
def list_pop(items: List, *, dtype: AnyDtype, shape: Shape) -> tuple[List, Any]:
    """`items` without the last element, and that element. Source: tf.raw_ops.TensorListPopBack."""
    if not items:
        raise InputError("trying to pop from an empty list")
    value = items[-1]
    return items[:-1], _zeros(_shape_among(items, shape), dtype) if value is None else value


@op(stage="early", infer=_LIST)
def list_resize(items: List, size: Number) -> List:
    """`items` truncated or extended to `size` elements. Source: tf.raw_ops.TensorListResize."""
    if int(size) < 0:
        raise InputError(f"TensorListSlice expects size to be non-negative. Got: {int(size)}")
    return [*items[: int(size)], *[None] * (_bounded(size) - len(items))]


@op(stage="early", infer=_LIST)
def list_extend(first: List, second: List) -> List:
    """The concatenation of both lists. Source: tf.raw_ops.TensorListConcatLists."""
    return [*first, *second]


@op(stage="early", infer=_stacked)
def list_stack(items: List, *, dtype: AnyDtype, shape: Shape) -> Any:
    """The elements as the rows of one tensor: `n of [...] -> [n, ...]`; unwritten rows are zeros.

    An empty list needs a `shape` without free sizes. Source: tf.raw_ops.TensorListStack, TensorArrayGatherV3.
    """
    return _stack(_filled(items, dtype, shape), dtype, shape)


@op(stage="early", infer=_stacked)
def list_gather(items: List, indices: Tensor, *, dtype: AnyDtype, shape: Shape) -> Any:
    """The elements at `indices` as rows: `n of [...], [m] -> [m, ...]`. Source: tf.raw_ops.TensorListGather,
    TensorArrayGatherV3."""
    known = _shape_among(items, shape)
    chosen = [items[_checked(i, len(items))] for i in _integers(indices)]
    return _stack(_filled(chosen, dtype, known), dtype, known)


@op(stage="early", infer=_joined)
def list_concat(items: List, *, dtype: AnyDtype, shape: Shape, lengths: tuple[int, ...] = ()) -> tuple[Any, Tensor]:
    """The elements concatenated along their first axis, and their lengths: `n of [length, ...] -> [sum of lengths,
    ...], [n]` int64.

    `lengths` are those of unwritten elements. Source: tf.raw_ops.TensorListConcatV2, TensorArrayConcatV3.
    """
    known = _shape_among(items, shape)
    rest = None if known is None else known[1:]
    parts = [
        _zeros((lengths[i], *rest) if rest is not None and i < len(lengths) else known, dtype) if item is None else item
        for i, item in enumerate(items)
    ]
    sizes = torch.tensor([part.shape[0] for part in parts], dtype=torch.int64)
    if not parts:
        return _zeros(None if rest is None else (0, *rest), dtype), sizes
    joined = torch.cat(parts) if isinstance(parts[0], Tensor) else np.concatenate(parts)
    return joined, sizes


@op(stage="early", infer=_LIST)
def list_split(x: Tensor | Strings, lengths: Tensor) -> List:
    """Rows of `x` in runs: `[n, ...], [m] -> m of [length, ...]`. Source: tf.raw_ops.TensorListSplit,
    TensorArraySplitV3."""
    sizes = _integers(lengths)
    if any(size < 0 for size in sizes) or sum(sizes) != x.shape[0]:
        raise InputError(f"a tensor of {x.shape[0]} rows cannot be split into runs of {sizes}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [x[start : start + size] for start, size in zip(starts, sizes, strict=True)]


# -- inside -------------------------------------------------------------------------------------------------------------


def _integers(x: Tensor) -> list[int]:
    return [int(value) for value in x.cpu().numpy()]


def _checked(index: int, length: int) -> int:
    if not 0 <= index < length:
        raise InputError(f"element {index} of a list of {length} tensors")
    return index


def _shape_among(items: Sequence[Any], shape: Shape) -> Shape:
    """`shape` with free sizes taken from a written element."""
    if shape is not None and all(size >= 0 for size in shape):
        return shape
    return next((tuple(item.shape) for item in items if item is not None), shape)


def _filled(items: Sequence[Any], dtype: str, shape: Shape) -> list[Any]:
    if all(item is not None for item in items):
        return list(items)
    zeros = _zeros(_shape_among(items, shape), dtype)
    return [zeros if item is None else item for item in items]


def _stack(items: list[Any], dtype: str, shape: Shape) -> Any:
    if not items:
        return _zeros(None if shape is None else (0, *shape), dtype)
    return torch.stack(items) if isinstance(items[0], Tensor) else np.stack(items)


def _zeros(shape: Shape, dtype: str) -> Any:
    if shape is None or any(size < 0 for size in shape):
        raise InputError(f"a list of tensors without written elements needs a fixed element shape, but it is {shape}")
    if dtype == "string":
        return np.full(shape, b"", object)
    if dtype == "variant":
        return np.empty(shape, object)
    return torch.zeros(shape, dtype=torch_dtype(dtype))
