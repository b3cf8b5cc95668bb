"""Attention and rotary position embedding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from torch_towers.graph.registry import op
from torch_towers.kernels import small_layers
from torch_towers.kernels.fast_path import readable


@op()
def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, scale: float, heads_last: bool = False,
    empty: bool = False,
) -> Tensor:  # fmt: skip
    """`softmax(scale * query @ key.T + mask) @ value`: `[..., t, dim], [..., s, dim], [..., s, out] -> [..., t, out]`.

    `mask` broadcasts to `[..., t, s]`. A float mask is added; a boolean one masks where it is False. A fully masked
    position returns the average of all values, as in TensorFlow, or 0 if `empty`, as in Keras 3. `heads_last`: operands
    and result are `[batch, t, heads, dim]`. Source: Keras MultiHeadAttention, Attention.
    """
    if heads_last:
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if (small := small_layers.attention(query, key, value, mask, scale, empty)) is not None:
        return small.transpose(1, 2) if heads_last else small
    some: Tensor | None = None
    if mask is not None and mask.dtype == torch.bool:
        some = mask.any(-1, keepdim=True)
        query, mask = torch.where(some, query, 0.0), mask | ~some  # equal scores for a fully masked position
    if _is_usual(query, key, mask):
        result = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    else:
        result = torch.softmax(_scores(query * scale @ key.mT, mask), -1) @ value
    if empty and some is not None:
        result = torch.where(some, result, 0.0)
    return result.transpose(1, 2) if heads_last else result


def shared_out(scores: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """`softmax(scores + mask) @ value`, with the mask of `attention`: `[..., t, s], [..., s, out] -> [..., t, out]`."""
    if mask is not None and mask.dtype == torch.bool:
        some = mask.any(-1, keepdim=True)
        scores, mask = torch.where(some, scores, 0.0), mask | ~some
    return torch.softmax(_scores(scores, mask), -1) @ value


@op()
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the halves `a, b` of the last axis become `a cos - b sin, b cos + a sin`: `[..., dim] -> [...,
    dim]`.

    `cos` and `sin` broadcast to `x`. Source: KerasHub RotaryEmbedding.
    """
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def _scores(products: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return products
    return products.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else products + mask


def _is_usual(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Whether torch's attention applies: not for empty operands, nor for a mask with more rows than the scores.

    Also not if a gradient is needed and a float mask may be -1e9 for a whole row: torch saves the log-sum-exp of the
    row for its gradient, where the number of positions is lost to rounding.
    """
    if mask is not None and mask.is_floating_point() and torch.is_grad_enabled() and query.requires_grad:
        return False
    if not readable():
        return True
    if not query.numel() or mask is None:
        return bool(query.numel())
    sizes = (*query.shape[:-1], key.shape[-2])[-mask.ndim :]
    return all(size in (1, wanted) for size, wanted in zip(mask.shape, sizes, strict=False))
