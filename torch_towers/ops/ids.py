"""Ids of the rows of a table."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.graph.registry import op


@op()
def wrap_negative(ids: Tensor, *, size: int) -> Tensor:
    """`ids`, with negative ones counted from the end of a table of `size` rows: `[...] -> [...]`. Source: Keras 3
    Embedding."""
    return torch.where(ids < 0, ids + size, ids)
