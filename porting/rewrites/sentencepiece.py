"""SentencepieceRows: the ids of a SentencePiece tokenizer, padded to rows."""

from __future__ import annotations

from porting.lifting.integers import pieces_of
from porting.lifting.patterns import Any_, Apply, Match, Number, Refusal, Sum
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.graph import Node

_TOKENS = Apply("module", Any_("texts"), name="tokens")


@rewrite(
    "SentencepieceRows",
    Apply("ragged_to_tensor", Sum(_TOKENS, Number(name="shift")) | _TOKENS, Number(name="pad"), types=("ROW_SPLITS",)),
)
def rows(view: View, root: Node, match: Match) -> None:
    """Ids plus a constant, padded to a fixed length or to the longest row."""
    tokens = view.nodes[match["tokens"]]
    spec = view.module_of(tokens, "SentencepieceTokenizer")
    if spec is None or spec.args.get("offsets", True) or spec.args.get("pieces") or spec.args.get("nbest"):
        raise Refusal("its values are not just the ids of a SentencepieceTokenizer")
    values, _, partitions, *sizes = root.inputs
    summed = view.node(values)
    ids = summed.inputs if summed is not None and summed is not tokens else (values,)
    if f"{tokens.name}:0" not in ids or partitions != (f"{tokens.name}:1",):
        raise Refusal("its rows are not those of its texts")
    _, length = sizes or (-1, -1)
    if len(sizes) not in (0, 2) or (sizes and sizes[0] != -1) or type(length) is not int:
        raise Refusal(f"it is padded to {sizes}, which is not known at port time")
    shift, pad = match.get("shift") or 0, match["pad"]
    if (
        view.dtype(root.name) != "int32"
        or not float(shift).is_integer()
        or not -(2**31) <= shift <= 2**31 - pieces_of(view, spec)
    ):
        raise Refusal("its ids are not int32")
    marks = {key: spec.args[key] for key in ("add_bos", "add_eos", "reverse", "model") if key in spec.args}
    args = {**marks, "shift": int(shift), "pad": int(pad), "length": length}
    held = str(tokens.attrs["module"])
    texts = match["texts"]
    view.rewrite(root, "module", texts, module="")
    view.sweep()
    view.module(view.nodes[root.name], "SentencepieceRows", view.name_in_place_of(held), args, texts)
