"""Sizes: the dimensions of tensors, as Python integers (symbolic ones under `torch.compile`), and arithmetic on
them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Spec, Strings, elementwise, op, returns

_SIZE = returns(("size", ()))


def as_sizes(sizes: Sequence[Any]) -> list[int]:
    """A list of integers from integers, or from one integer tensor."""
    first: Any = sizes[0] if len(sizes) == 1 else None
    if first is not None and not isinstance(first, int) and first.ndim == 1:
        return first.tolist()
    return [int(size) if isinstance(size, Tensor) else size for size in sizes]


def rank_of(shape: Spec) -> int | str | None:
    """The rank that a shape vector describes, where it is known. Errors: `InputError` for more axes than TensorFlow's tensors have."""
    rank = shape[1][0] if shape[1] else None
    if isinstance(rank, int) and rank > _MAX_AXES:
        raise InputError(f"a shape of {rank} sizes: a tensor has at most {_MAX_AXES}")
    return rank


_MAX_AXES = 254


@op(infer=_SIZE)
def size(x: Tensor | Strings, *, axis: int) -> int:
    """The length of one axis. Source: tf.raw_ops.Shape."""
    return x.shape[axis]


def _int64(size: int) -> int:
    """`size`, which must fit int64. Symbolic sizes are not checked."""
    if isinstance(size, int) and not -_LIMIT <= size < _LIMIT:  # type: ignore[reportUnnecessaryIsInstance]
        raise InputError("arithmetic on sizes overflows int64: no tensor is that large")
    return size


_LIMIT = 1 << 63


@op(infer=_SIZE)
def size_add(a: int, b: int) -> int:
    """`a + b` of two sizes."""
    return _int64(a + b)


@op(infer=_SIZE)
def size_sub(a: int, b: int) -> int:
    """`a - b` of two sizes."""
    return _int64(a - b)


@op(infer=_SIZE)
def size_mul(a: int, b: int) -> int:
    """`a * b` of two sizes."""
    return _int64(a * b)


@op(infer=_SIZE)
def size_floordiv(a: int, b: int) -> int:
    """`a // b` of two sizes, rounded down as `tf.raw_ops.FloorDiv` does."""
    return a // b


@op(infer=_SIZE)
def size_mod(a: int, b: int) -> int:
    """`a` modulo `b`, with the sign of `b` like `tf.raw_ops.FloorMod`."""
    return a % b


@op(infer=_SIZE)
def size_max(a: int, b: int) -> int:
    """The larger of two sizes."""
    return max(a, b)


@op(infer=_SIZE)
def size_min(a: int, b: int) -> int:
    """The smaller of two sizes."""
    return min(a, b)


@op(infer=_SIZE)
def size_less(a: int, b: int) -> int:
    """1 if `a < b`, else 0: the condition of a counting loop."""
    return int(a < b)


@op(stage="early", infer=_SIZE)
def element(x: Tensor, *, index: tuple[int, ...]) -> int:
    """One element of an integer tensor as a size."""
    return int(x[index])


def _sizes_tensor(*specs: Any, dtype: str, scalar: bool = False) -> list[Any]:
    return [(dtype, () if scalar else (len(specs),))]


@op(infer=_sizes_tensor)
def sizes_tensor(*sizes: int, dtype: Dtype, scalar: bool = False, device: torch.device | None = None) -> Tensor:
    """Sizes as a tensor: `n integers -> [n]`, or `1 integer -> []` if `scalar`."""
    values = torch.tensor(sizes, dtype=torch_dtype(dtype), device=device)
    return values[0] if scalar else values


def _shape_spec(x: Any, *, dtype: str) -> list[Any]:
    return [(dtype, (None if x[1] is None else len(x[1]),))]


@op(infer=_shape_spec)
def shape(x: Tensor | Strings, *, dtype: Dtype) -> Tensor:
    """The shape of `x` as a tensor: `[...] -> [rank]`. Source: tf.raw_ops.Shape, for an unknown rank."""
    return torch.tensor(x.shape, dtype=torch_dtype(dtype))


@op(infer=elementwise())
def identity(x: Any) -> Any:
    """`x` unchanged."""
    return x
