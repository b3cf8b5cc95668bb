"""`SelfAttention`: the class that a file has for attention of a value to itself, with what its masks need and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MASKS = {
    "": "",
    "added": "",
    "average": """\
        attended = mask.any(-1, keepdim=True)
        query, mask = torch.where(attended, query, 0.0), mask | ~attended  # nothing to attend to: the average of all
""",
    "zero": """\
        attended = mask.any(-1, keepdim=True)  # nothing to attend to: the result is 0
""",
}
_CLASS = '''\
class SelfAttention(nn.Module):
    """Attention of several heads: [batch, length, dim] -> [batch, length, dim].{said}"""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.attention_output = nn.Linear(dim, dim)

    def forward(self, x: Tensor{parameter}) -> Tensor:
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )  # [batch, heads, length, dim / heads]
{before}        x = F.scaled_dot_product_attention(query, key, value{mask})
{after}        return self.attention_output(x.transpose(1, 2).flatten(2))
'''
_SAID = {
    "": "",
    "added": " The mask is added to the scores.",
    "average": " The mask is true where to attend.",
    "zero": " The mask is true where to attend.",
}


def is_self_attention(args: Mapping[str, Any]) -> bool:
    """Whether the arguments of a `MultiHeadAttention` are those of the class here."""
    features = {args[f"{part}_features"] for part in ("query", "key", "value", "out")}
    heads, dim = int(args["heads"]), int(args["key_dim"])
    usual = dim**-0.5
    return (
        features == {heads * dim}
        and args["value_dim"] == dim
        and bool(args.get("bias", True) and args.get("out_bias", True))
        and abs(float(args["scale"]) - usual) < 1e-7 * usual
    )


def kind_of_mask(dtype: str | None, *, empty: bool) -> str | None:
    """What becomes of a position with nothing to look at: a key of the forms here; None if the dtype is not known."""
    if dtype == "bool":
        return "zero" if empty else "average"
    return "added" if dtype is not None else None


def self_attention(mask: str) -> str:
    """The source of the class for a kind of mask; "" for none."""
    given = {"": "", "zero": ", attn_mask=mask | ~attended"}.get(mask, ", attn_mask=mask")
    after = "        x = torch.where(attended, x, 0.0)\n" if mask == "zero" else ""
    parameter = ", mask: Tensor" if mask else ""
    return _CLASS.format(said=_SAID[mask], parameter=parameter, before=_MASKS[mask], mask=given, after=after)
