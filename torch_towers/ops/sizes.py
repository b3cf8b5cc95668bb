"""Sizes: the dimensions of tensors, as Python integers (symbolic ones under `torch.compile`), and arithmetic on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import torch_dtype
from torch_towers.graph.registry import Strings, elementwise, op, returns

_SIZE = returns(("size", ()))


def as_sizes(sizes: Sequence[Any]) -> list[int]:
    """Sizes given as integers, or as one integer tensor that the graph computed: a list of integers."""
    first: Any = sizes[0] if len(sizes) == 1 else None
    if first is not None and not isinstance(first, int) and first.ndim == 1:
        return first.tolist()
    return [int(size) if isinstance(size, Tensor) else size for size in sizes]


@op(infer=_SIZE)
def size(x: Tensor | Strings, *, axis: int) -> int:
    """The length of one axis. Source: tf.raw_ops.Shape."""
    return x.shape[axis]


def _int64(size: int) -> int:
    """`size`, which an int64 holds. Symbolic sizes are whatever torch says of them."""
    if isinstance(size, int) and not -_LIMIT <= size < _LIMIT:  # type: ignore[reportUnnecessaryIsInstance]
        raise InputError("arithmetic on sizes gives a number beyond int64: no tensor is as large as that")
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
    """What is left of `a` divided by `b`, with the sign of `b` as `tf.raw_ops.FloorMod` has it."""
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
    """1 where `a < b`, else 0: the condition of a loop that counts."""
    return int(a < b)


@op(stage="early", infer=_SIZE)
def element(x: Tensor, *, index: tuple[int, ...]) -> int:
    """One element of an integer tensor as a size."""
    return int(x[index])


def _sizes_tensor(*specs: Any, dtype: str, scalar: bool = False) -> list[Any]:
    return [(dtype, () if scalar else (len(specs),))]


@op(infer=_sizes_tensor)
def sizes_tensor(*sizes: int, dtype: str, scalar: bool = False, device: torch.device | None = None) -> Tensor:
    """Sizes as a tensor: `n integers -> [n]`, or `1 integer -> []` where `scalar`."""
    values = torch.tensor(sizes, dtype=torch_dtype(dtype), device=device)
    return values[0] if scalar else values


def _shape_spec(x: Any, *, dtype: str) -> list[Any]:
    return [(dtype, (None if x[1] is None else len(x[1]),))]


@op(infer=_shape_spec)
def shape(x: Tensor | Strings, *, dtype: str) -> Tensor:
    """The shape of `x` as a tensor: `[...] -> [rank]`. Source: tf.raw_ops.Shape, where the rank is not known beforehand."""
    return torch.tensor(x.shape, dtype=torch_dtype(dtype))


@op(infer=elementwise())
def identity(x: Any) -> Any:
    """`x` itself."""
    return x
