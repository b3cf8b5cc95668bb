"""Assertions: inputs that TensorFlow refuses are refused with TensorFlow's message."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Number, Spec, Strings, op, returns


@op(stage="host", infer=returns())
def check(condition: Number, *data: Any) -> None:
    """Raises `InputError` with the texts and values in `data` unless `condition` holds. Source: tf.raw_ops.Assert."""
    if not bool(condition):
        raise InputError("assertion failed: " + " ".join(_text(item) for item in data))


def _text(item: Any) -> str:
    """One operand of an assertion in TensorFlow's format: at most three elements per axis."""
    values: Any = item.tolist() if hasattr(item, "tolist") else item
    if isinstance(values, bytes):
        return f"[{values.decode('utf-8', 'replace')}]"
    if not isinstance(values, list):
        return f"[{values}]"
    flat: list[Any] = []
    pending: list[Any] = [values]
    while pending:
        head = pending.pop(0)
        if isinstance(head, list):
            pending = head + pending  # type: ignore[reportUnknownVariableType]
        else:
            flat.append(f'"{head.decode("utf-8", "replace")}"' if isinstance(head, bytes) else head)
    return f"[{' '.join(map(str, flat[:3]))}{'...' if len(flat) > 3 else ''}]"


@op(infer=returns(("int32", ())))
def rank(x: Tensor | Strings) -> Tensor:
    """The number of axes: `[...] -> []` int32. Source: tf.raw_ops.Rank."""
    return torch.tensor(x.ndim, dtype=torch.int32)


def _scalar(x: Spec, *, dtype: str) -> list[Spec]:
    return [(dtype, ())]


@op(infer=_scalar)
def numel(x: Tensor | Strings, *, dtype: Dtype) -> Tensor:
    """The number of elements: `[...] -> []`. Source: tf.raw_ops.Size."""
    count = x.numel() if isinstance(x, Tensor) else x.size
    return torch.tensor(count, dtype=torch_dtype(dtype))
