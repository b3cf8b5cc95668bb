"""TextVectorization: from lowercasing a text to its padded row of ids. The lookup inside is already lifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Number, Refusal, Source
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Node

_X = Any_("x")
_CONSTANT = frozenset({"constant"})


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The source of tokens: the split, and the n-grams of its parts."""

    split: Node
    ngrams: Node | None


@rewrite("TextVectorization", Apply("ragged_to_tensor", Any_("ids"), Number(name="pad")))
def padded(view: View, root: Node, match: Match) -> None:
    """Ids, padded."""
    lookup, tokens = _tokens(view, match["ids"])
    partitions, *sizes = root.inputs[2:]
    types = tuple(root.attrs["types"])
    sizes = sizes or [-1, -1]  # no sizes are given
    if len(sizes) != 2 or sizes[0] != -1 or not isinstance(sizes[1], int):
        raise Refusal(f"it is padded to {sizes}, which is not known at port time")
    if types == ("FIRST_DIM_SIZE", "VALUE_ROWIDS"):
        if tokens.ngrams is not None or not _is_row_count(view, partitions[0], tokens.split):
            raise Refusal("its rows are not those of its texts")
        if not _is_row_ids(view, partitions[1], tokens.split):
            raise Refusal("its rows are not those of its texts")
    elif types != ("ROW_SPLITS",) or not _is_splits(view, partitions[0], tokens):
        raise Refusal("its rows are not those of its texts")
    length = {"length": sizes[1]} if sizes[1] >= 0 else {}
    if length.get("length") == 0:
        raise Refusal("it is truncated to no tokens at all")
    _lift(view, root, lookup, tokens, {"output_mode": "int", **length, "pad_id": int(match["pad"])})


@rewrite(
    "TextVectorization",
    Apply("ragged_bincount", Any_("splits"), Any_("ids"), Number(name="size"), Source("weights", _CONSTANT)),
)
def counted(view: View, root: Node, match: Match) -> None:
    """Ids, counted."""
    lookup, tokens = _tokens(view, match["ids"])
    if not _is_splits(view, match["splits"], tokens):
        raise Refusal("its rows are not those of its texts")
    weights = view.constant(match["weights"])
    if weights.numel():
        raise Refusal("it sums weights")
    mode = "multi_hot" if root.attrs["binary_output"] else "count"
    size, dtype = int(match["size"]), view.dtype(root.name)
    _lift(view, root, lookup, tokens, {"output_mode": mode, "size": size, "dtype": dtype})


def _tokens(view: View, ids: str) -> tuple[Node, _Tokens]:
    """The lookup of `ids`, and the source of its tokens."""
    lookup = view.node(ids)
    spec = view.module_of(lookup, "StringLookup")
    if lookup is None or spec is None or "dtype" in spec.args:
        raise Refusal("its ids are not those of a StringLookup")
    ref = lookup.inputs[0]
    source = view.node(ref)
    if source is not None and source.op == "ngrams" and ref == f"{source.name}:0":
        split = view.node(source.inputs[0])
        if split is None or not _is_split(view, split, source.inputs[0]):
            raise Refusal("its n-grams are not made of the parts of a split")
        tokens = _Tokens(split, source)
        if not _is_splits(view, source.inputs[1], _Tokens(split, None)):
            raise Refusal("its n-grams do not keep to the rows of its texts")
        plain = {"left_pad": b"", "right_pad": b"", "preserve_short": False, "pad_width": 0}
        if any(source.attrs.get(key, value) != value for key, value in plain.items()):
            raise Refusal("its n-grams are padded, or keep short rows")
        return lookup, tokens
    if source is None or not _is_split(view, source, ref):
        raise Refusal(
            f"its tokens come from {source.op if source else ref!r}, not from a split at white space or a separator"
        )
    return lookup, _Tokens(source, None)


def _is_split(view: View, node: Node, ref: str) -> bool:
    """Whether `ref` is the parts (second result) of tf.strings.split; its operand distinguishes it from the split of
    tensors."""
    return (
        node.op in ("split", "string_split")
        and ref == f"{node.name}:1"
        and "sep" in node.attrs
        and node.attrs["maxsplit"] == -1
    )


def _found(view: View, pattern: Any, ref: Any, split: Node, result: int) -> bool:
    match = next(pattern.find(view, ref, Match()), None)
    return match is not None and match["x"] == f"{split.name}:{result}"


_ROW_COUNT = Apply("select", _X, 0, axis=0) | Apply("element", _X, index=(0,)) | Apply("item", _X, index=0)
_ROW_COUNTS = Apply("cast", _ROW_COUNT) | _ROW_COUNT
_ROW_ID = Apply("select", _X, 0, axis=1)
_ROW_IDS = Apply("cast", _ROW_ID) | _ROW_ID
_LENGTHS = Apply(
    "bincount",
    Apply("reshape", _ROW_IDS, -1) | _ROW_IDS,
    Any_("count"),
    Source("weights", _CONSTANT),
    binary_output=False,
)
_SPLITS = Apply(
    "concat", Source("zero", _CONSTANT), Apply("cumsum", _LENGTHS, axis=0, exclusive=False, reverse=False), axis=0
)


def _is_row_count(view: View, ref: Any, split: Node) -> bool:
    return _found(view, _ROW_COUNTS, ref, split, 2) or _is_input_size(view, ref, split)


def _is_input_size(view: View, ref: Any, split: Node) -> bool:
    """The number of texts, taken from the shape of the split's operand."""
    node = view.node(ref)
    texts = view.shape(split.inputs[0])
    return (
        node is not None
        and node.op == "size"
        and texts is not None
        and view.shape(ref) == ()
        and _size_of(view, node) == texts[0]
    )


def _size_of(view: View, node: Node) -> Any:
    shape = view.shape(node.inputs[0])
    return shape[node.attrs["axis"]] if shape is not None else None


def _is_row_ids(view: View, ref: Any, split: Node) -> bool:
    return _found(view, _ROW_IDS, ref, split, 0)


def _is_splits(view: View, ref: Any, tokens: _Tokens) -> bool:
    """The row splits of the tokens: the second result of the n-grams, or the cumulative row lengths."""
    if tokens.ngrams is not None:
        return ref == f"{tokens.ngrams.name}:1"
    match = next(_SPLITS.find(view, ref, Match()), None)
    if match is None or match["x"] != f"{tokens.split.name}:0":
        return False
    zero, weights = view.constant(match["zero"]), view.constant(match["weights"])
    if (
        not isinstance(zero, Tensor)
        or zero.numel() != 1
        or int(zero) != 0
        or not isinstance(weights, Tensor)
        or weights.numel()
    ):
        return False
    return _is_row_count(view, match["count"], tokens.split)


def _lift(view: View, root: Node, lookup: Node, tokens: _Tokens, args: dict[str, Any]) -> None:
    held = view.modules[str(lookup.attrs["module"])].args
    whole = {**held, **args}
    if tokens.ngrams is not None:
        whole |= {"ngrams": tuple(tokens.ngrams.attrs["widths"]), "ngram_separator": tokens.ngrams.attrs["separator"]}
    if tokens.split.attrs["sep"]:
        whole["separator"] = tokens.split.attrs["sep"]
    texts, standardized = _standardization(view, tokens.split.inputs[0])
    whole |= standardized
    if view.dtype(root.name) != whole.get("dtype", "int64"):
        raise Refusal(f"its ids are {view.dtype(root.name)}")
    held_by = str(lookup.attrs["module"])
    view.rewrite(root, "module", texts, module="")
    view.sweep()
    name = view.layers.get(("TextVectorization", repr(sorted(whole.items()))))
    if name is None:
        name = view.layers["TextVectorization", repr(sorted(whole.items()))] = view.name_in_place_of(held_by)
    view.module(view.nodes[root.name], "TextVectorization", name, whole, texts)


def _standardization(view: View, ref: str) -> tuple[str, dict[str, Any]]:
    """The texts before squeezing, cleaning and lowercasing, and the arguments that describe these."""
    shape = view.shape(ref)
    node = view.node(ref)
    if node is not None and node.op == "squeeze" and len(node.attrs["axes"]) == 1 and node.attrs["axes"][0] in (1, -1):
        before = view.shape(node.inputs[0])
        if before is not None and len(before) == 2:
            ref, shape = node.inputs[0], before
    if shape is None or len(shape) not in (1, 2):
        raise Refusal("the rank of its texts is not known")
    args: dict[str, Any] = {}
    replaced: list[tuple[bytes, bytes]] = []
    while (node := view.node(ref)) is not None and node.op == "regex_replace" and node.attrs["replace_global"]:
        ref = node.inputs[0]
        replaced.insert(0, (node.attrs["pattern"], node.attrs["rewrite"]))
    if replaced:
        args["replace"] = tuple(replaced)
    node = view.node(ref)
    if node is not None and node.op == "lower" and node.attrs.get("encoding", "") in ("", "utf-8"):
        ref = node.inputs[0]
        args["lowercase"] = node.attrs.get("encoding") or "ascii"
    return ref, args
