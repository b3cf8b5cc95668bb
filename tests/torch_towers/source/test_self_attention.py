"""The class for attention of a value to itself gives what the layer gives, with every kind of mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.layers.attention import MultiHeadAttention
from torch_towers.source.self_attention import is_self_attention, kind_of_mask, self_attention

ARGS: dict[str, Any] = {
    **{f"{part}_features": 8 for part in ("query", "key", "value", "out")},
    "heads": 2, "key_dim": 4, "value_dim": 4, "scale": 0.5,
}  # fmt: skip
BOOL = torch.tensor([[True, True, False], [False, False, False]])[:, None, None, :]
MASKS = {"none": None, "bool": BOOL, "added": torch.where(BOOL, 0.0, -1e9)}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_as_the_layer(mask: str, empty: bool) -> None:
    given = MASKS[mask]
    kind = "" if given is None else kind_of_mask(str(given.dtype).removeprefix("torch."), empty=empty)
    assert kind is not None
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "Tensor": Tensor}
    exec(self_attention(kind), scope)  # the source of a file of ours
    torch.manual_seed(0)
    layer, ours = MultiHeadAttention(**ARGS, empty=empty), scope["SelfAttention"](8, 2)
    ours.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 8)
    expected = layer(x, x, x, given)
    found = ours(x) if given is None else ours(x, given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # sums of 8 numbers of order 1, in another order


@pytest.mark.parametrize(
    "other", [{"scale": 1.0}, {"bias": False}, {"out_features": 6}, {"value_dim": 2}, {"heads": 4}]
)
def test_other_attention_is_not_of_this_class(other: dict[str, Any]) -> None:
    assert is_self_attention(ARGS)
    assert not is_self_attention({**ARGS, **other})
