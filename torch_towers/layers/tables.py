"""Lookup tables: vocabularies that map tokens to ids, and back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import CheckpointError, InputError
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.dtypes import dtype_name
from torch_towers.graph.registry import Spec, Strings, module


def _lookup_spec(x: Spec, default: Spec, *, default_per_key: bool = False, **names: Any) -> list[Spec]:
    if x[1] is None or default[1] is None:
        return [(default[0], x[1] if default_per_key else None)]
    return [(default[0], x[1] if default_per_key else (*x[1], *default[1]))]


@module(stage="host", infer=_lookup_spec)
class LookupTable:
    """A table from keys to values: `table(x, default)`, `[...] -> [...]`, returns `default` for unknown keys.

    With `default_per_key`, `default` may have one value per element of `x`, as for TensorFlow's mutable tables.
    Keys and values are strings, integers or floats. Source: tf.raw_ops.LookupTableFindV2.
    """

    def __init__(self, keys: Tensor | Strings, values: Tensor | Strings, default_per_key: bool = False) -> None:
        if keys.ndim != 1 or values.shape[:1] != keys.shape:
            raise CheckpointError(
                f"lookup table: {list(keys.shape)} keys and {list(values.shape)} values, expected as many values as keys"
            )
        self.keys = keys
        self.values = values
        self.default_per_key = default_per_key
        self._row: dict[Any, int] = {key: row for row, key in enumerate(_items(keys))}
        self._of: dict[Any, Any] = {}
        if values.ndim == 1:
            items = _items(values)
            self._of = {key: items[row] for key, row in self._row.items()}

    def __len__(self) -> int:
        return len(self._row)

    def __call__(self, x: Tensor | Strings, default: Tensor | Strings) -> Tensor | Strings:
        flat: list[Any] = _items(x.reshape(-1))
        if self.values.ndim > 1:
            return self._rows(flat, tuple(x.shape), default)
        found = map(self._of.get, flat, self._defaults(default, tuple(x.shape)))
        if isinstance(self.values, Tensor):
            name = dtype_name(self.values)
            if name == "bfloat16":
                return torch.tensor(list(found), dtype=self.values.dtype).reshape(tuple(x.shape))
            return torch.as_tensor(np.fromiter(found, name, len(flat))).reshape(tuple(x.shape))
        return strings(list(found), x.shape)

    def _defaults(self, default: Tensor | Strings, shape: tuple[int, ...]) -> Iterable[Any]:
        items = _items(default.reshape(-1))
        if not default.ndim:
            return repeat(items[0])
        if tuple(default.shape) != shape:
            raise InputError(f"Expected shape [] or {list(shape)} for default value, got {list(default.shape)}")
        return items if self.default_per_key else repeat(items[0] if items else None)

    def _rows(self, flat: list[Any], shape: tuple[int, ...], default: Tensor | Strings) -> Tensor | Strings:
        """Lookup of vector values: `[...] -> [..., *value]`."""
        last = len(self.values)
        rows = [self._row.get(key, last) for key in flat]
        if isinstance(self.values, Tensor):
            assert isinstance(default, Tensor)
            table = torch.cat([self.values, default.expand(1, *self.values.shape[1:])])
            return table[torch.tensor(rows, dtype=torch.int64)].reshape(*shape, *self.values.shape[1:])
        bottom = np.broadcast_to(default, (1, *self.values.shape[1:]))  # type: ignore[reportArgumentType]
        return np.concatenate([self.values, bottom])[rows].reshape(*shape, *self.values.shape[1:])


def _items(x: Tensor | Strings) -> list[Any]:
    return x.tolist()  # type: ignore[reportUnknownMemberType]
