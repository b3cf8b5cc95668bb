"""Activations with weights: torch's own."""

from __future__ import annotations

from torch import nn

from torch_towers.graph.registry import module

PReLU = module()(nn.PReLU)
"""`x` where positive, `weight * x` elsewhere: `[n, features] -> [n, features]`. Source: Keras PReLU."""
