"""Generates inputs to compare a transformer on, if the caller has none."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.graph import TensorSpec
from torch_towers.source.transformer import Transformer
from torch_towers.tower import Tower

Columns = dict[str, np.ndarray[Any, Any]]
_ROWS, _LENGTHS = 4, (1, 5, 16)
_FAR = 300  # places, where distances count: T5 tells 128 of them apart
_TEXTS = (b"red shoes", b"the quick brown fox jumps over the lazy dog", b"a", "Zürich, 3.14!".encode())


def made_inputs(tower: Tower, found: Transformer) -> list[Columns]:
    """Batches of zero-padded rows: ids below the vocabulary size if the tower takes ids, else 0 and 1."""
    vocabulary = len(found.parts["words"]["weight"]) if "words" in found.parts else 2
    positions = found.parts.get("positions")
    lengths = _LENGTHS if found.distances is None else (*_LENGTHS, _FAR)
    places = max(lengths) if positions is None else len(positions["weight"])
    ids = {spec.name for spec in tower.inputs if _decides(tower, spec, found.ids)} if vocabulary > 2 else set[str]()
    random = np.random.default_rng(0)
    batches: list[Columns] = []
    for length in dict.fromkeys(min(length, places) for length in lengths):
        ends = random.integers(1, length + 1, _ROWS)
        ends[0] = length
        limits = {spec.name: vocabulary if spec.name in ids else 2 for spec in tower.inputs}
        made = {spec.name: _column(spec, limits[spec.name], ends, random) for spec in tower.inputs}
        batches += [made] if _prepared(tower, made) is not None else []
    return batches


def _decides(tower: Tower, spec: TensorSpec, name: str) -> bool:
    """Whether the encoder's input `name` is this integer input of the tower, unchanged."""
    if not spec.dtype.startswith(("int", "uint")):
        return False
    ends = np.array([3, 3])
    one = {other.name: _column(other, 2, ends) for other in tower.inputs}
    first, second = _prepared(tower, one), _prepared(tower, {**one, spec.name: _column(spec, 2, ends) + 1})
    return first is not None and second is not None and not np.array_equal(first[name], second[name])


def _prepared(tower: Tower, inputs: Columns) -> dict[str, Any] | None:
    try:
        return {name: value.numpy() for name, value in tower.preprocess(inputs).items() if isinstance(value, Tensor)}
    except (InputError, TypeError):
        return None


def _column(
    spec: TensorSpec, limit: int, ends: np.ndarray[Any, Any], random: np.random.Generator | None = None
) -> np.ndarray[Any, Any]:
    """Values of one input: one row per element of `ends`, zeros from there on."""
    free = iter((len(ends), int(ends.max()), *(3,) * 8))
    shape = tuple(size if isinstance(size, int) else next(free) for size in spec.shape or ())
    if spec.dtype == "string":
        return np.array([_TEXTS[i % len(_TEXTS)] for i in range(int(np.prod(shape)))], object).reshape(shape)
    if spec.dtype.startswith(("float", "bfloat")):
        values = np.ones(shape) if random is None else random.random(shape)
        return values.astype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    values = np.ones(shape, np.int64) if random is None or limit == 2 else random.integers(1, limit, shape)
    if len(shape) == 2:
        values = values * (np.arange(shape[1]) < ends[:, None])
    return values.astype(spec.dtype)
