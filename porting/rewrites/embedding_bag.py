"""EmbeddingBag: the embeddings of each row of a sparse tensor added up, as embedding_lookup_sparse and feature columns spell it.

They look the different ids up once, add up the rows by their places among them, and put a dummy id into each empty row, whose
embedding they replace by zeros. Each rewrite takes one of these detours out: the same rows are added up in the same order.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Refusal, Weight, zero
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from porting.rewrites.embedding import picked_rows, unchecked
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_INTEGERS = ("int32", "int64")
_PLAN = (Any_("chunks"), Any_("owners"), Any_("lengths"))
_LOOKED_UP = Apply("gather", Any_("table"), Any_("found"), axis=zero, batch_dims=zero, name="rows")


@rewrite("", Apply("sparse_segment_reduce", _LOOKED_UP, Any_("places"), *_PLAN), keeps=("rows",))
def without_unique(view: View, root: Node, match: Match) -> None:
    """The rows of the different ids, picked by their places: the rows of the ids."""
    unique, plan = view.node(match["places"]), view.node(match["chunks"])
    found, limit = unchecked(view, match["found"])
    if unique is None or unique.op != "unique" or (found, match["places"]) != _results(unique, 2):
        raise Refusal("the ids are not those of a unique")
    if plan is None or not _is_plan(plan, match) or plan.inputs[0] != match["places"]:
        raise Refusal("the rows are not added up by these places")
    ids = unique.inputs[0]
    if view.dtype(ids) not in _INTEGERS or view.rank(ids) != 1:
        raise Refusal("the ids are not known to be a vector of integers")
    again = _once(view, plan, "segment_chunks", ids, *plan.inputs[1:], results=3)
    if limit is not None:
        ids = _once(view, root, "in_range", ids, limit, dtype=view.dtype(ids))
    view.rewrite(root, "sparse_segment_reduce", match["table"], ids, *again, **root.attrs)


_POOLED = Apply("sparse_segment_reduce", Any_("table"), Any_("ids"), *_PLAN, name="pooled")


@rewrite("", Apply("where", Any_("mask"), 0.0, _POOLED), keeps=("pooled",))
def without_dummies(view: View, root: Node, match: Match) -> None:
    """Empty rows that are filled, looked up and then replaced by zeros: bags, of which an empty one is zeros."""
    ids, limit = unchecked(view, match["ids"])
    filled, plan = view.node(ids), view.node(match["chunks"])
    if filled is None or filled.op != "sparse_fill_empty_rows" or ids != f"{filled.name}:1":
        raise Refusal("the ids are not those of filled rows")
    if plan is None or not _is_plan(plan, match) or len(plan.inputs) != 2 or plan.inputs[0] != ids:
        raise Refusal("the rows are not added up by these ids")
    if _column(view, plan.inputs[1]) != (f"{filled.name}:0", 0):
        raise Refusal("the rows are not added up by the first column of the indices")
    if _flag_of_rows(view, match["mask"], view.shape(root.name)) != f"{filled.name}:2":
        raise Refusal("what is replaced by zeros are not the rows that were empty")
    dummy = _number(view, filled.inputs[3])
    if dummy is None or dummy < 0 or not (limit is None or (isinstance(limit, int) and dummy < limit)):
        raise Refusal("the id of empty rows is not known to be in the table")
    ids, *again = _once(view, filled, "sparse_bags", *_pruned(view, filled), results=4)
    if limit is not None:
        ids = _once(view, filled, "in_range", ids, limit, dtype="int64")
    view.rewrite(root, "sparse_segment_reduce", match["table"], ids, *again, **view.nodes[match["pooled"]].attrs)


_BAGS = Apply("sparse_segment_reduce", Any_("table"), Any_("ids"), *_PLAN, name="bags")


@rewrite("", Apply("reshape", _BAGS), keeps=("bags",))
def shaped_as_it_is(view: View, root: Node, match: Match) -> None:
    """`[rows, dim]` under the shape of the sparse tensor's rows, and `dim`: itself."""
    bags, dim = view.node(match["lengths"]), view.shape(match["table"])
    if bags is None or bags.op != "sparse_bags" or dim is None or len(dim) != 2:
        raise Refusal("these are not bags")
    sizes = [_scalar(view, size) for size in root.inputs[1:]]
    if sizes != [_element(view, bags.inputs[2], 0), dim[1]]:
        raise Refusal("the shape is another one")
    view.alias(root, match["bags"])


@rewrite("", Apply("reshape", Any_("x")))
def shaped_by_its_own_sizes(view: View, root: Node, match: Match) -> None:
    """`x` under its own sizes, as feature columns write it."""
    if not view.are_sizes(root.inputs[1:], match["x"]):
        raise Refusal("its sizes are others")
    view.alias(root, match["x"])


@rewrite("EmbeddingBag", Apply("sparse_segment_reduce", Weight("table"), Any_("ids"), *_PLAN))
def embedding_bag(view: View, root: Node, match: Match) -> None:
    """The rows of a weight, added up segment by segment."""
    table, shape = match["table"], view.shape(match["table"])
    if shape is None or len(shape) != 2 or view.dtype(table) not in FLOATS:
        raise Refusal(f"the weight {table!r} is not a float matrix")
    args = {"num_embeddings": shape[0], "embedding_dim": shape[1], "mode": root.attrs["reduction"]}
    plan = [match[part] for part in ("chunks", "owners", "lengths")]
    view.layer(root, "EmbeddingBag", args, match["ids"], *plan, weights={"weight": table})


# -- what stands around them ------------------------------------------------------------------------------------------


def _results(node: Node, count: int) -> tuple[str, ...]:
    return tuple(f"{node.name}:{i}" for i in range(count))


def _is_plan(plan: Node, match: Match) -> bool:
    """Whether the three operands are those that `segment_chunks` gives, in order."""
    return plan.op == "segment_chunks" and _results(plan, 3) == tuple(match[x] for x in ("chunks", "owners", "lengths"))


def _once(view: View, root: Node, op: str, *inputs: Any, dtype: str | None = "int64", results: int = 1) -> Any:
    """The node `op` in front of `root`, of vectors; the one that is there where lookups share it."""
    key = (op, inputs)
    name = view.layers.get(key)
    if name is None or name not in view.nodes or not _stands_before(view, name, root.name):
        name = view.layers[key] = view.before(root, op, *inputs, known=(dtype, (None,)))
    if results == 1:
        return name
    refs = _results(view.nodes[name], results)
    view.learn(view.nodes[name], dict.fromkeys(refs, (dtype, (None,))))
    return refs


def _stands_before(view: View, name: str, other: str) -> bool:
    return next(node for node in view.nodes if node in (name, other)) == name


def _pruned(view: View, filled: Node) -> tuple[str, str, str]:
    """Indices, values and shape of the sparse tensor of which `filled` has the ids that are not negative."""
    indices, kept = picked_rows(view, filled.inputs[0])
    values, also = picked_rows(view, filled.inputs[1])
    node = view.node(kept)
    where = (
        view.node(node.inputs[0]) if node is not None and node.op == "reshape" and node.inputs[1:] == (-1,) else None
    )
    test = view.node(where.inputs[0]) if where is not None and where.op == "where_true" else None
    if (
        kept != also
        or test is None
        or test.op != "greater_equal"
        or test.inputs[0] != values
        or _number(view, test.inputs[1]) != 0
    ):
        raise Refusal("the ids that are negative are not left out before")
    if view.dtype(values) not in _INTEGERS or view.rank(values) != 1:
        raise Refusal("the ids are not known to be a vector of integers")
    indices, shape = _as_matrix(view, indices, filled.inputs[2])
    return indices, values, shape


def _as_matrix(view: View, indices: str, shape: Any) -> tuple[str, str]:
    """`indices` and `shape` before a `sparse_reshape` to the matrix that they already are."""
    node = view.node(indices)
    if node is None or node.op != "sparse_reshape" or (indices, shape) != _results(node, 2):
        return indices, shape
    before, old, new = node.inputs
    known = view.shape(before)
    if (
        known is not None
        and known[1:] == (2,)
        and all(_element(view, old, i) == _element(view, new, i) for i in (0, 1))
    ):
        return before, old  # type: ignore[return-value]
    return indices, shape


def _column(view: View, ref: Any) -> Any:
    """`(x, i)` of `x[:, i]`, at any width of integers."""
    node = view.node(ref)
    if node is not None and node.op == "cast" and view.dtype(ref) in _INTEGERS:
        return _column(view, node.inputs[0])
    return (
        (node.inputs[0], node.inputs[1])
        if node is not None and node.op == "select" and node.attrs.get("axis") == 1
        else None
    )


def _flag_of_rows(view: View, mask: Any, shape: Any) -> Any:
    """The vector that `mask` has in each of its columns."""
    node = view.node(mask)
    if node is not None and node.op == "tile" and shape is not None and node.inputs[1:] == (1, shape[-1]):
        node = view.node(node.inputs[0])
    if node is not None and node.op == "reshape" and node.inputs[1:] == (-1, 1):
        return node.inputs[0]
    return node.inputs[0] if node is not None and node.op == "unsqueeze" and node.attrs.get("axis") in (1, -1) else None


def _number(view: View, ref: Any) -> int | None:
    """An integer: a literal, or a constant of rank 0."""
    value = ref if isinstance(ref, int) else view.constant(ref)
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point():
        return int(value)
    return value if isinstance(value, int) else None


# -- sizes, however the graph reads them ------------------------------------------------------------------------------


def _element(view: View, ref: Any, index: int) -> Any:
    """What says which number stands at `index` of a vector of sizes: equal where they are equal."""
    node, constant = view.node(ref), view.constant(ref)
    if isinstance(constant, Tensor):
        return int(constant.reshape(-1)[index])
    if node is None:
        return ref, index
    if node.op == "cast" and view.dtype(ref) in _INTEGERS:
        return _element(view, node.inputs[0], index)
    if node.op in ("stack", "sizes_tensor") and index < len(node.inputs) and not node.attrs.get("scalar"):
        return _scalar(view, node.inputs[index])
    if node.op == "narrow" and isinstance(node.inputs[1], int) and node.inputs[1] >= 0:
        return _element(view, node.inputs[0], node.inputs[1] + index)
    if node.op == "concat":
        for part in node.inputs:
            length = view.shape(part)
            if length is None or len(length) != 1 or not isinstance(length[0], int):
                return ref, index
            if index < length[0]:
                return _element(view, part, index)
            index -= length[0]
    return ref, index


def _scalar(view: View, ref: Any) -> Any:
    """The same of a single size."""
    node = view.node(ref)
    if node is None or ":" in ref:
        return ref
    if node.op == "cast" and view.dtype(ref) in _INTEGERS:
        return _scalar(view, node.inputs[0])
    if node.op == "item":
        return _element(view, node.inputs[0], node.attrs["index"])
    if node.op == "select" and isinstance(node.inputs[1], int) and node.inputs[1] >= 0:
        return _element(view, node.inputs[0], node.inputs[1])
    if node.op == "gather" and not view.rank(ref):
        index = _number(view, node.inputs[1])
        return ref if index is None or index < 0 else _element(view, node.inputs[0], index)
    if node.op == "reduce_prod" and view.shape(node.inputs[0]) == (1,):
        return _element(view, node.inputs[0], 0)
    return ref
