"""Interactions of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_towers.graph.registry import module


@module()
class DotInteraction(nn.Module):
    """The dot product of every two features: `[batch, dim], ... -> [batch, pairs]`.

    Or of one tensor `[batch, features, dim]`. The pairs are those of a later feature with an earlier one, in the order
    of the later one, and, with `self_interaction`, of each with itself. With `skip_gather` the result is the whole
    matrix of products, as `[batch, features * features]`, with zeros for all other pairs.
    Source: tfrs.layers.feature_interaction.DotInteraction, DLRM.
    """

    def __init__(self, self_interaction: bool = False, skip_gather: bool = False) -> None:
        super().__init__()
        self.self_interaction, self.skip_gather = self_interaction, skip_gather

    def forward(self, *features: Tensor) -> Tensor:
        x = features[0] if len(features) == 1 else torch.stack(features, 1)
        products, last = x @ x.mT, 0 if self.self_interaction else -1
        if self.skip_gather:
            return products.tril(last).flatten(1)
        count = products.shape[-1]
        later, earlier = torch.tril_indices(count, count, last, device=x.device)
        return products[:, later, earlier]

    def extra_repr(self) -> str:
        return ", ".join(f"{name}=True" for name in ("self_interaction", "skip_gather") if getattr(self, name))
