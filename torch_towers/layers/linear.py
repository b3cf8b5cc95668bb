"""Dense layers: torch's own."""

from __future__ import annotations

from torch import nn

from torch_towers.registry import module

Linear = module()(nn.Linear)
"""`x @ weight.T + bias`: `[..., in] -> [..., out]`. Source: Keras Dense, whose kernel is `[in, out]`."""
