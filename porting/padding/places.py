"""What is known of a value of a graph when rows are cut at their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torch_towers.graph.graph import Node
from torch_towers.graph.registry import OPS

LOW = -1e4
"""A score from which `exp` gives 0 beside any that counts: BERT adds -10000, Keras -1e9."""


class DependsError(Exception):
    """An output may depend on what stands behind the end of a row: the sentence says where."""


@dataclass(frozen=True)
class Places:
    """A value in a run whose rows are cut, beside the same in a run of whole rows.

    `axes` are those whose places are the row's, each with the number that is at all places behind the end (None: any). At the
    other places both runs have the same numbers; without `axes` both have the same value whole. `on` is the number at all
    places before the end, where it is known. `low`: numbers there may be so low that a softmax takes nothing from them.
    `backwards`: the places come from the last to the first. `is_length`: the value is the number of places itself.
    """

    axes: Mapping[int, Any] = field(default_factory=dict[int, Any])
    on: Any = None
    low: bool = False
    backwards: bool = False
    is_length: bool = False

    def off(self, axis: int) -> Any:
        """The number behind the end along an axis of the row's places."""
        return self.axes.get(axis)


WHOLE = Places()


class Marked:
    """A number before the end of a row, of which no more is known than that it is not `value`, which is behind the end."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def through(self, node: Node) -> Any:
        """The result of an op, where it is one number whatever the place holds."""
        others = [operand for operand in node.inputs if not isinstance(operand, str)]
        if node.op in ("not_equal", "equal") and others == [self.value]:
            return node.op == "not_equal"
        return True if node.op == "cast" and node.attrs.get("dtype") == "bool" and self.value == 0 else None


def elementwise(node: Node, parts: Sequence[Places], ranks: Sequence[int], numbers: Sequence[Any]) -> Places:
    """What an op gives whose operands are broadcast to one shape. `numbers`: what an operand is everywhere, where it is one number."""
    rank = max(ranks, default=0)
    moved = [
        {axis + rank - own: off for axis, off in part.axes.items()} for part, own in zip(parts, ranks, strict=True)
    ]
    axes = {
        axis: _at(node, [part.get(axis, number) for part, number in zip(moved, numbers, strict=True)])
        for axis in sorted({axis for part in moved for axis in part})
    }
    on = _at(node, [number if number is not None else part.on for part, number in zip(parts, numbers, strict=True)])
    return Places(axes, on, any(part.low for part in parts) or _lowers(node, parts, numbers))


def _at(node: Node, numbers: Sequence[Any]) -> Any:
    """The result where the operands are `numbers`; None where it is not one number."""
    if node.op in ("zeros_like", "ones_like"):
        return int(node.op == "ones_like")
    marked = next((number for number in numbers if isinstance(number, Marked)), None)
    if marked is not None:
        return marked.through(node)
    if None not in numbers:
        return _computed(node, numbers)
    known = [number for number in numbers if number is not None]
    if node.op in ("mul", "mul_no_nan") and any(number == 0 for number in known):
        return 0
    if node.op == "logical_and" and any(not number for number in known):
        return False
    if node.op == "logical_or" and any(bool(number) for number in known):
        return True
    if node.op == "where" and numbers[0] is not None:
        return numbers[1] if numbers[0] else numbers[2]
    if node.op == "add" and any(number <= LOW for number in known):
        return min(known)
    return None


def _computed(node: Node, numbers: Sequence[Any]) -> Any:
    try:
        found = OPS[node.op].function(*[torch.as_tensor(number) for number in numbers], **node.attrs)
    except Exception:  # it wants more than numbers
        return None
    return found.item() if isinstance(found, Tensor) and found.numel() == 1 else None


def _lowers(node: Node, parts: Sequence[Places], numbers: Sequence[Any]) -> bool:
    """Whether a number before the end may become low: one that a condition chooses which is not known there."""
    if node.op != "where" or parts[0].on is not None:
        return False
    return any(isinstance(number, (int, float)) and number <= LOW for number in numbers[1:])
