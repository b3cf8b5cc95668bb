"""Steps of a sequence that a graph handles one by one: reading them, and stacking them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from porting.lifting.view import View
from torch_towers.graph.graph import Node


def sequence_of(view: View, items: Sequence[str]) -> tuple[str, bool] | None:
    """The tensor `[n, length, ...]` of which `items` are all the steps, and whether from the last to the first."""
    nodes = [node for item in items if (node := view.node(item)) is not None and node.op in ("unstack", "select")]
    sources = {(node.inputs[0], node.attrs["axis"]) for node in nodes}
    if len(nodes) < len(items) or len(sources) != 1:
        return None
    source, axis = sources.pop()
    places = [
        int(item.partition(":")[2]) if node.op == "unstack" else _from_start(node.inputs[1], len(items))
        for item, node in zip(items, nodes, strict=True)
    ]
    steps, shape = list(range(len(items))), view.shape(source)
    if shape is None or axis not in (0, 1) or shape[axis] != len(items) or places not in (steps, steps[::-1]):
        return None
    if axis == 0:
        turned = view.node(source)
        if turned is None or not turns_steps(turned):
            return None
        source = turned.inputs[0]
    return source, places != steps


def is_mask_of(view: View, mask: str, x: str) -> bool:
    """Whether `mask` has the rows and steps of `x [n, length, ...]`, which may both be merged from the same axes."""
    rows, shape = _rows(view, mask, 1), view.shape(x)
    return (
        rows is not None
        and shape is not None
        and None not in shape[:2]
        and (view.shape(mask) == shape[:2] or rows == _rows(view, x, len(shape) - 1))
    )


def mask_of_lengths(view: View, root: Node, x: str, lengths: str) -> str:
    """The mask `[n, length]` of the `lengths [n]` of the rows of `x [n, length, ...]`, before `root`."""
    (rows, length, *_), dtype = view.shape(x) or (None, None), view.dtype(lengths)
    size = view.before(root, "size", x, axis=1, known=("size", ()))
    steps = view.before(root, "arange", 0, size, 1, dtype=dtype, known=(dtype, (length,)))
    ends = view.before(root, "unsqueeze", lengths, axis=1, known=(dtype, (rows, 1)))
    return view.before(root, "less", steps, ends, known=("bool", (rows, length)))


def _rows(view: View, ref: str, kept: int) -> tuple[Any, ...] | None:
    """The axes before the `kept` last ones, also those that a reshape has merged; None if they are not known."""
    node, shape = view.node(ref), view.shape(ref)
    if node is not None and node.op == "reshape" and node.inputs[1] == -1:
        before = view.shape(node.inputs[0]) or ()
        shape = before if node.inputs[2:] == before[-kept:] else None
    return None if shape is None or None in shape else shape[:-kept]


def _from_start(place: object, length: int) -> object:
    """A place counted from the end, counted from the start."""
    return place + length if isinstance(place, int) and place < 0 else place


def turns_steps(node: Node) -> bool:
    """Whether a node exchanges rows and steps, and nothing else."""
    return node.op == "transpose" and tuple(node.attrs["perm"]) == (1, 0, *range(2, len(node.attrs["perm"])))


def replace_stack(view: View, stack: Node, sequence: str) -> None:
    """Redirects users of a `stack` of all steps of `sequence [n, length, ...]`, along axis 0 or 1."""
    if stack.attrs["axis"] == 1:
        view.alias(stack, sequence)
        return
    rank = view.rank(sequence) or 0
    view.rewrite(stack, "transpose", sequence, perm=(1, 0, *range(2, rank)))
    for user in view.consumers(stack.name):
        if turns_steps(user):
            view.alias(user, sequence)
