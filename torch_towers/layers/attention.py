"""Attention with weights, as in Keras."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.ops.array import join_last
from torch_towers.ops.attention import attention, shared_out


@module()
class MultiHeadAttention(nn.Module):
    """Multi-head attention with projections `query`, `key`, `value` and `attention_output`.

    `[batch, t, query_features], [batch, s, key_features], [batch, s, value_features], [..., t, s] -> [batch, t,
    out_features]`. The mask and `empty` are those of the op `attention`. Source: Keras MultiHeadAttention.
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
        """The number of multiplications for queries and keys of these shapes."""
        asking, asked = query[:-1].numel(), key[:-1].numel()
        projections = asking * (self.query.weight.numel() + self.attention_output.weight.numel())
        projections += asked * (self.key.weight.numel() + self.value.weight.numel())
        return float(projections + asking * key[-2] * (self.key.out_features + self.value.out_features))

    def extra_repr(self) -> str:
        return f"heads={self.heads}, scale={self.scale:.4g}"


@module()
class Attention(nn.Module):
    """Attention without projections: `[n, t, dim], [n, s, dim], [n, s, out], [..., t, s] -> [n, t, out]`.

    Scores are `scale * query @ key.T`, or with `score_mode` "concat" `concat_score_weight * sum(tanh(scale * (query +
    key)))`; `scale` is one number, 1 if `use_scale` is False. The mask is that of the op `attention`. Source: Keras
    Attention.
    """

    def __init__(self, use_scale: bool = False, score_mode: Literal["dot", "concat"] = "dot") -> None:
        super().__init__()
        self.score_mode = score_mode
        self.scale = nn.Parameter(torch.ones(())) if use_scale else None
        self.concat_score_weight = nn.Parameter(torch.ones(())) if score_mode == "concat" else None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.concat_score_weight is None:
            return attention(query if self.scale is None else query * self.scale, key, value, mask, scale=1.0)
        sums = query.unsqueeze(-2) + key.unsqueeze(-3)
        sums = sums if self.scale is None else self.scale * sums
        return shared_out(self.concat_score_weight * torch.tanh(sums).sum(-1), value, mask)

    def extra_repr(self) -> str:
        return f"use_scale={self.scale is not None}, score_mode={self.score_mode!r}"


@module()
class AdditiveAttention(nn.Module):
    """Attention by `sum(scale * tanh(query + key))`: `[n, t, dim], [n, s, dim], [n, s, out], [..., t, s] -> [n, t, out]`.

    `scale` is a vector, 1 if `use_scale` is False. The mask is that of the op `attention`. Source: Keras
    AdditiveAttention.
    """

    def __init__(self, dim: int, use_scale: bool = True) -> None:
        super().__init__()
        self.dim = dim
        self.scale = nn.Parameter(torch.ones(dim)) if use_scale else None

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        sums = torch.tanh(query.unsqueeze(-2) + key.unsqueeze(-3))
        return shared_out((sums if self.scale is None else self.scale * sums).sum(-1), value, mask)

    def extra_repr(self) -> str:
        return str(self.dim) if self.scale is not None else f"{self.dim}, use_scale=False"
