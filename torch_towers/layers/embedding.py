"""Embedding tables: torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.errors import InputError
from torch_towers.graph.registry import module


@module()
class Embedding(nn.Embedding):
    """The rows of a table: `[...]` int -> `[..., dim]`; `nn.Embedding`, with less of a call around it.

    Source: tf.raw_ops.ResourceGather, Keras Embedding.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(num_embeddings, embedding_dim)  # type: ignore[reportUnknownMemberType]

    def forward(self, input: Tensor) -> Tensor:
        return torch.embedding(self.weight, input)

    def weighted_sum(self, input: Tensor, weights: Tensor) -> Tensor:
        """The sum of rows, each times its weight (or under a mask): `[n, length] int, [n, length] -> [n, dim]`."""
        return F.embedding_bag(input, self.weight, mode="sum", per_sample_weights=weights.to(self.weight.dtype))


@module()
class PositionEmbedding(nn.Module):
    """A vector for each place, the first ones of a table: `length -> [length, dim]`.

    A length beyond the table gives all of it; where it is `strict`, an `InputError`.
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
