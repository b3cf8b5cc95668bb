"""Tables in parts, as partitioners and lists of variables make them: one table, looked up at once.

`embedding_lookup` distributes the ids to the parts, looks each share up, and stitches the rows together again. Which part
holds an id is TensorFlow's "div" (the rows in order, cut into runs) or "mod" (part `id % parts` holds the row
`id // parts`). One table with its rows in the order of the ids gives the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, zero
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from porting.rewrites.embedding import picked_rows
from torch_towers.graph.graph import Node


def _cast(x: Pattern) -> Pattern:
    """`x` at any width of integers."""
    return Apply("cast", x) | x


_IDS, _COUNT, _LONG, _SHORT, _EXTRAS = (
    Any_("ids"), Number(name="count"), Number(name="long"), Number(name="short"), Number(name="extras"),
)  # fmt: skip
_BEHIND = (_IDS - _EXTRAS) | _IDS  # the parts behind the longer ones; none is longer: nothing is subtracted
_PART = Apply("maximum", Apply("floor_div", _IDS, _LONG), Apply("floor_div", _BEHIND, _SHORT))
_ROW = Apply(
    "where",
    Apply("less", _cast(_PART), _EXTRAS),
    Apply("floor_mod", _IDS, _LONG),
    Apply("floor_mod", _BEHIND, _SHORT),
)
_STRATEGIES = {
    "mod": (_cast(Apply("floor_mod", _IDS, _COUNT)), _cast(Apply("floor_div", _IDS, _COUNT))),
    "div": (_cast(_PART), _cast(_ROW)),
}
"""The part of each id, and its row there (`tensorflow/python/ops/embedding_ops.py`)."""


@dataclass(frozen=True)
class Lookup:
    """A lookup of `ids` in `parts`, references of weights, whose rows are distributed by `strategy`."""

    parts: tuple[str, ...]
    strategy: str
    ids: str


@rewrite("", Apply("dynamic_stitch"), forward=True)
def one_table(view: View, root: Node, match: Match) -> None:
    """`stitch(part[ids] for each part)` -> `table[ids]`, in every lookup of these parts.

    The rows of the table are in the order of the first lookup's ids. A lookup by the other strategy counts them in another
    order: `table[order[ids]]`.
    """
    lookup = _lookup(view, root)
    if any(_lookup(view, other).parts != lookup.parts for other in _users(view, lookup.parts)):
        raise Refusal("some of the parts are also looked up with others")
    name = _name([view.tensor_name(part) for part in lookup.parts])
    sizes = [int(view.shape(part)[0]) for part in lookup.parts]  # type: ignore[index]
    key, order_of = ("partitions", lookup.parts), ("order", lookup.parts)
    if key not in view.layers:
        values = [view.tensor(part) for part in lookup.parts]
        view.layers[key] = view.weights.join(root, name, lookup.parts, _joined(values, lookup.strategy))
        view.layers[order_of] = lookup.strategy
    spec = view.dtype(lookup.ids), view.shape(lookup.ids)
    ids = view.before(root, "in_range", lookup.ids, sum(sizes), known=spec)
    if view.layers[order_of] != lookup.strategy:
        order = _order(sizes, lookup.strategy, view.layers[order_of])
        order = view.weights.constant(root, f"{name.removesuffix('.weight')}_order", order)
        ids = view.before(root, "gather", order, ids, axis=0, batch_dims=0, known=("int64", spec[1]))
    view.rewrite(root, "gather", view.layers[key], ids, axis=0, batch_dims=0)


_FLAT = Apply("reshape", Any_("ids"), -1)
_ROWS = Apply("gather", Any_("table"), Apply("in_range", _FLAT, Number(name="limit")), axis=zero, batch_dims=zero)


@rewrite("", Apply("reshape", _ROWS))
def without_flat_ids(view: View, root: Node, match: Match) -> None:
    """`table[ids.reshape(-1)]` under the sizes of `ids` and of a row -> `table[ids]`."""
    table, ids = view.shape(match["table"]), view.shape(match["ids"])
    if table is None or ids is None or not view.are_sizes(root.inputs[1 : 1 + len(ids)], match["ids"]):
        raise Refusal("its sizes are not those of the ids")
    if root.inputs[1 + len(ids) :] != table[1:]:
        raise Refusal("its last sizes are not those of a row")
    checked = view.before(root, "in_range", match["ids"], int(match["limit"]), known=(view.dtype(match["ids"]), ids))
    view.rewrite(root, "gather", match["table"], checked, axis=0, batch_dims=0)


# -- reading a lookup ---------------------------------------------------------------------------------------------------


def _lookup(view: View, stitch: Node) -> Lookup:
    """What a stitch looks up."""
    if stitch.op != "dynamic_stitch":
        raise Refusal("the parts are used otherwise")
    places, rows, _ = stitch.inputs
    gathered = [_row_of(view, ref) for ref in rows]  # type: ignore[union-attr]
    parts = tuple(table for table, _ in gathered)
    shares = _partition(view, [ids for _, ids in gathered])
    ranks = _partition(view, places)  # type: ignore[arg-type]
    if shares.inputs[1] != ranks.inputs[1]:
        raise Refusal("the rows are not put back to where their ids were")
    for strategy, (part, row) in _STRATEGIES.items():
        for match in part.find(view, shares.inputs[1], Match()):
            for both in row.find(view, shares.inputs[0], match):
                _check_sizes(view, strategy, parts, both)
                _check_ranks(view, ranks.inputs[0], both["ids"])
                return Lookup(parts, strategy, both["ids"])
    raise Refusal('the ids are distributed neither by "div" nor by "mod"')


def _row_of(view: View, ref: Any) -> tuple[str, Any]:
    """The weight and the ids of `weight[ids]`."""
    name, ids = picked_rows(view, ref)
    table = view.node(name)
    if table is None or table.op != "parameter" or not view.shape(table.name):
        raise Refusal("what is stitched are not the rows of weights")
    return table.name, ids


def _partition(view: View, refs: Sequence[Any]) -> Node:
    """The node whose results are `refs`, in order."""
    node = view.node(refs[0]) if refs else None
    if node is None or node.op != "dynamic_partition" or [*refs] != [f"{node.name}:{i}" for i in range(len(refs))]:
        raise Refusal("the parts are not those of a partition")
    if node.attrs["count"] != len(refs):
        raise Refusal("some parts of the partition are not used")
    return node


def _check_sizes(view: View, strategy: str, parts: tuple[str, ...], match: Match) -> None:
    """The numbers in the formulas are those of these tables."""
    count, sizes = len(parts), [int(view.shape(part)[0]) for part in parts]  # type: ignore[index]
    short, extras = divmod(sum(sizes), count)
    if sizes != [short + 1] * extras + [short] * (count - extras):
        raise Refusal("the parts have other sizes than TensorFlow's partitions")
    numbers = {"count": count, "long": short + 1, "short": short, "extras": extras}
    if any(match.get(name) not in (None, number) for name, number in numbers.items()):
        raise Refusal("the ids are distributed to parts of other sizes")
    if strategy == "div" and short == 0:
        raise Refusal("some parts are empty")


def _check_ranks(view: View, ref: Any, ids: str) -> None:
    """`ref` counts the ids from 0."""
    node = view.node(ref)
    if node is None or node.op != "arange" or node.inputs[::2] != (0, 1) or not view.is_size(node.inputs[1], ids, 0):
        raise Refusal("the rows are not put back in the order of the ids")


def _users(view: View, parts: Sequence[str]) -> list[Node]:
    """The nodes that use rows of the parts, or the parts otherwise."""
    readers = [reader for part in parts for reader in view.consumers(part)]
    stitches = [user for reader in readers for user in (view.consumers(reader.name) or [reader])]
    if any(map(view.is_output, [*parts, *(reader.name for reader in readers)])):
        raise Refusal("a part, or its rows, are outputs of the graph")
    return stitches


# -- joining ------------------------------------------------------------------------------------------------------------


def _joined(parts: Sequence[Tensor], strategy: str) -> Tensor:
    """The rows of the parts in the order of their ids."""
    if strategy == "div":
        return torch.cat([*parts])
    table = parts[0].new_empty(sum(len(part) for part in parts), *parts[0].shape[1:])
    for first, part in enumerate(parts):
        table[first :: len(parts)] = part
    return table


def _order(sizes: Sequence[int], strategy: str, other: str) -> Tensor:
    """For each id of `strategy`, the one of `other` with the same row."""
    rows = torch.arange(sum(sizes)).split([*sizes])
    return torch.argsort(_joined(rows, other))[_joined(rows, strategy)]


def _name(parts: Sequence[str]) -> str:
    """What the names of the parts share: "table.part_0" and "table.part_1" are of "table"."""
    same = takewhile(lambda letters: len({*letters}) == 1, zip(*parts, strict=False))
    shared = "".join(letters[0] for letters in same).rstrip("0123456789").removesuffix("part_").rstrip("._")
    return f"{shared}.weight" if shared else parts[0]
