"""The known facts of a value when rows are truncated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torch_towers.graph.graph import Node
from torch_towers.graph.registry import OPS

LOW = -1e4
"""A score low enough that `exp` gives 0 next to any unmasked score: BERT adds -10000, Keras -1e9."""


class DependsError(Exception):
    """An output may depend on padding, at the given place."""


@dataclass(frozen=True)
class Places:
    """A value in a run of truncated rows, compared with the same value in a run of whole rows.

    `axes` are the axes over the row's positions, each with the number at all positions after the end (None: unknown).
    Before the end both runs have the same numbers; without `axes` the whole value is the same. `on` is the number at
    all positions before the end, if known. `low`: numbers there may be so low that a softmax ignores them. `backwards`:
    positions are reversed. `is_length`: the value is the number of positions itself.
    """

    axes: Mapping[int, Any] = field(default_factory=dict[int, Any])
    on: Any = None
    low: bool = False
    backwards: bool = False
    is_length: bool = False

    def off(self, axis: int) -> Any:
        """The number after the end along an axis of positions."""
        return self.axes.get(axis)


WHOLE = Places()


class Marked:
    """A number before the end of a row, known only to differ from `value`, the number after the end."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def through(self, node: Node) -> Any:
        """The result of an op if it is the same for all such numbers."""
        others = [operand for operand in node.inputs if not isinstance(operand, str)]
        if node.op in ("not_equal", "equal") and others == [self.value]:
            return node.op == "not_equal"
        return True if node.op == "cast" and node.attrs.get("dtype") == "bool" and self.value == 0 else None


def elementwise(node: Node, parts: Sequence[Places], ranks: Sequence[int], numbers: Sequence[Any]) -> Places:
    """The facts of an elementwise result with broadcasting. `numbers`: the operands that are splats."""
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
    """The result for operands `numbers`; None if it is not one number."""
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
    except Exception:  # it needs more than numbers
        return None
    return found.item() if isinstance(found, Tensor) and found.numel() == 1 else None


def _lowers(node: Node, parts: Sequence[Places], numbers: Sequence[Any]) -> bool:
    """Whether a number before the end may become low: one selected by an unknown condition."""
    if node.op != "where" or parts[0].on is not None:
        return False
    return any(isinstance(number, (int, float)) and number <= LOW for number in numbers[1:])
