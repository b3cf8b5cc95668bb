"""Embedding tables."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.errors import InputError
from torch_towers.graph.registry import module
from torch_towers.ops.segments import sparse_segment_reduce


@module()
class Embedding(nn.Embedding):
    """The rows of a table: `[...]` int -> `[..., dim]`; `nn.Embedding` with less call overhead.

    Source: tf.raw_ops.ResourceGather, Keras Embedding.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(num_embeddings, embedding_dim)  # type: ignore[reportUnknownMemberType]

    def forward(self, input: Tensor) -> Tensor:
        return torch.embedding(self.weight, input)

    def weighted_sum(self, input: Tensor, weights: Tensor) -> Tensor:
        """The weighted (or masked) sum of rows: `[n, length] int, [n, length] -> [n, dim]`."""
        return F.embedding_bag(input, self.weight, mode="sum", per_sample_weights=weights.to(self.weight.dtype))


@module()
class EmbeddingBag(nn.Module):
    """The rows of a table added up, bag by bag: ids `[k]` and their chunks, owners and lengths -> `[bags, dim]`.

    `mode` is "sum", "mean" or "sqrtn"; an empty bag is zeros. The plan of the additions is that of `sparse_bags` or
    `segment_chunks`: TensorFlow's order. Errors: `InputError` for an id outside the table.
    Source: tf.nn.embedding_lookup_sparse, tf.nn.safe_embedding_lookup_sparse.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, mode: Literal["sum", "mean", "sqrtn"]) -> None:
        super().__init__()
        self.mode: Literal["sum", "mean", "sqrtn"] = mode
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))

    def forward(self, ids: Tensor, chunks: Tensor, owners: Tensor, lengths: Tensor) -> Tensor:
        return sparse_segment_reduce(self.weight, ids, chunks, owners, lengths, reduction=self.mode)

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.weight.shape))}, mode={self.mode!r}"


@module()
class PositionEmbedding(nn.Module):
    """The first vectors of a table, one per position: `length -> [length, dim]`.

    A length beyond the table returns the whole table, or raises `InputError` if `strict`.
    Source: Keras layers of positions, `table[:length]`, tf.slice (strict), `x + table`.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict
        self.weight = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))

    def forward(self, length: int) -> Tensor:
        if self.strict and length > len(self.weight):
            raise InputError(f"Expected size[0] in [0, {len(self.weight)}], but got {length}")
        return self.weight[:length]

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))
