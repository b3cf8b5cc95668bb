"""TowerSpec: one tower as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_towers.graph import Graph, TensorSpec


@dataclass(frozen=True, slots=True)
class TowerSpec:
    """The three graphs of a tower and its signature.

    `preprocess` takes the signature's inputs (by their names, or in their order where a name cannot be a graph's) and gives
    what the encoder takes, by the encoder's names. `encoder` is tensors only. `postprocess`, where a string or table comes after
    the tensors, takes outputs of both by their names. `embedding` is the output that `encode_*` gives, None: the only float output of
    rank 2. `defaults` names, for inputs that may be left out, the tensor or vocabulary in the store that stands in.
    """

    preprocess: Graph
    encoder: Graph
    postprocess: Graph | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    embedding: str | None = None
    defaults: Mapping[str, str] = field(default_factory=dict[str, str])
