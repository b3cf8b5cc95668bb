"""Generates rows for a tower without hand-written ones, from the domain of its graph, as Python data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from porting.flat_graph.components import named_components

Columns = dict[str, Any]
Arrays = Mapping[str, Any]
SEEDS = (1, 7, 13, 19)
"""Seeds of `porting.samples` that give dynamic inner axes the same length, 8."""


def pool_of(port: Any) -> list[Arrays]:
    """In-domain batches of a ported tower, about 130 rows."""
    from porting.samples import samples

    found = [samples.batches(port.tf_graph, port.model, seed=seed, inside=port.inside) for seed in SEEDS]
    inside = [[sample.inputs for sample in batches if sample.kind == "domain"] for batches in found]
    return [batches[-1] for batches in inside]


def drawn(pool: Sequence[Arrays], count: int) -> Columns:
    """`count` rows of a pool, equal in every process: numbers of rank 1 and strings as lists, others as arrays."""
    parts = named_components(pool[0])
    taken: Columns = {}
    for name in pool[0]:
        kind = parts.get(name)
        if kind == "splits":
            continue
        if kind == "values":
            offsets = next(other for other, part in parts.items() if part == "splits")
            rows = [row for batch in pool for row in np.split(batch[name], batch[offsets][1:-1])]
            lists = [rows[i] for i in _places(count, len(rows))]
            taken[name] = _plain(np.concatenate(lists))
            taken[offsets] = _plain(np.cumsum([0, *map(len, lists)]))
            continue
        arrays = [batch[name] for batch in pool]
        if not arrays[0].ndim:
            taken[name] = arrays[0]
            continue
        joined = np.concatenate(arrays)
        taken[name] = _plain(joined[_places(count, len(joined))])
    return taken


def _places(count: int, size: int) -> Any:
    return np.random.default_rng(count).integers(0, size, count)


def _plain(array: Any) -> Any:
    if array.dtype == object:
        return _text(array.tolist())
    return array.tolist() if array.ndim == 1 else array


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_text, value))  # type: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
