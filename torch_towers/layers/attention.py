"""Attention with its projections, as Keras has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.ops.array import join_last
from torch_towers.ops.attention import attention


@module()
class MultiHeadAttention(nn.Module):
    """Attention of several heads between four projections, `query`, `key`, `value` and `attention_output`.

    `[batch, t, query_features], [batch, s, key_features], [batch, s, value_features], [..., t, s] -> [batch, t, out_features]`.
    The mask is that of `attention`, and so is `empty`. Source: Keras MultiHeadAttention.
    """

    def __init__(
        self,
        query_features: int,
        key_features: int,
        value_features: int,
        out_features: int,
        heads: int,
        key_dim: int,
        value_dim: int,
        scale: float,
        bias: bool = True,
        out_bias: bool = True,
        empty: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.scale, self.empty = heads, scale, empty
        self.query = nn.Linear(query_features, heads * key_dim, bias)
        self.key = nn.Linear(key_features, heads * key_dim, bias)
        self.value = nn.Linear(value_features, heads * value_dim, bias)
        self.attention_output = nn.Linear(heads * value_dim, out_features, out_bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (self._parted(x) for x in (self.query(query), self.key(key), self.value(value)))
        found = attention(query, key, value, mask, scale=self.scale, heads_last=True, empty=self.empty)
        return self.attention_output(join_last(found, count=2))

    def _parted(self, x: Tensor) -> Tensor:
        """`[..., heads * dim] -> [..., heads, dim]`."""
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)

    def multiplications(self, query: torch.Size, key: torch.Size) -> float:
        """Those of a call on queries and keys of these shapes."""
        asking, asked = query[:-1].numel(), key[:-1].numel()
        projections = asking * (self.query.weight.numel() + self.attention_output.weight.numel())
        projections += asked * (self.key.weight.numel() + self.value.weight.numel())
        return float(projections + asking * key[-2] * (self.key.out_features + self.value.out_features))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, scale={self.scale:.4g}"
