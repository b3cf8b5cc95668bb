"""Embedding tables: torch's own."""

from __future__ import annotations

from torch import nn

from torch_towers.registry import module

Embedding = module()(nn.Embedding)
"""The rows of a table: `[...]` int -> `[..., dim]`. Source: tf.raw_ops.ResourceGather, Keras Embedding."""
