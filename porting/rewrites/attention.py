"""attention and MultiHeadAttention: a softmax between two matmuls, and the projections around it."""

from __future__ import annotations

import math
from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node


def _swaps_last(perm: Any) -> bool:
    return perm is not None and tuple(perm) == (*range(len(perm) - 2), len(perm) - 1, len(perm) - 2)


_KEY = Any_("key")
_TURNED_KEY = Apply("matrix_transpose", _KEY) | Apply("transpose", _KEY, perm=_swaps_last)
_SWAPPED = Apply("transpose", Any_("query") * Number(name="query_scale") | Any_("query") / Number(name="query_divisor"),
                 perm=lambda perm: perm is not None and tuple(perm) == (0, 2, 1, 3), name="swapped")  # fmt: skip
_QUERY = (
    Any_("query") * Number(name="query_scale")
    | Any_("query") / Number(name="query_divisor")
    | _SWAPPED
    | Any_("query")
)  # fmt: skip


def masked(scores: Pattern) -> Pattern:
    """`scores` under a mask in any spelling, of which `mask_of` is the operand, or without one."""
    let_through = Apply("logical_and", Number(1.0), Any_("mask")) | Any_("mask")
    return (
        Apply("where", let_through, scores, Number(name="low"))
        | Apply("where", Any_("off"), Apply("sub", scores, Number(name="lowered")), scores)
        | Apply("add", scores, Any_("bias"))
        | Apply("sub", scores, Any_("minus"))
        | scores
    )


def _formula(product: Pattern, values: Any) -> Pattern:
    """The whole attention formula: `product` is queries times keys, `values` returns weights times values."""
    scores = product * Number(name="scale") | product / Number(name="divisor") | product
    shares = Apply("softmax", masked(scores))
    return values(Apply("where", Any_("mask"), shares, Number(0.0), name="emptied") | shares)


def _swaps_heads(perm: Any) -> bool:
    return perm is not None and tuple(perm) == (0, 2, 1, 3)


def _heads_first(p: Pattern) -> Pattern:
    """`[batch, length, heads, dim]` as `[batch, heads, length, dim]`."""
    return Apply("transpose", p, perm=_swaps_heads)


def _turns(perm: Any) -> bool:
    return perm is not None and tuple(perm) == (0, 2, 3, 1)


@rewrite("", Apply("matmul", Any_("a"), Apply("transpose", Any_("b"), perm=_turns)))
def turned_in_two_steps(view: View, root: Node, match: Match) -> None:
    """`[batch, length, heads, dim]` to `[batch, heads, dim, length]` in two transposes."""
    shape, dtype = view.shape(match["b"]), view.dtype(match["b"])
    if shape is None or len(shape) != 4:
        raise Refusal("a shape is not known")
    batch, places, heads, dim = shape
    first = view.before(root, "transpose", match["b"], known=(dtype, (batch, heads, places, dim)), perm=(0, 2, 1, 3))
    turned = view.before(root, "matrix_transpose", first, known=(dtype, (batch, heads, dim, places)))
    view.rewrite(root, "matmul", match["a"], turned)


@rewrite("", Apply("transpose", Apply("matmul", Any_("a"), Apply("matrix_transpose", Any_("b"))), perm=_swaps_last))
def product_turned(view: View, root: Node, match: Match) -> None:
    """`(k @ q.T).T` becomes `q @ k.T`: Keras 3 writes the einsum of scores this way."""
    shape = view.shape(match["a"])
    if shape is None or len(shape) < 2:
        raise Refusal("a shape is not known")
    known = view.dtype(match["a"]), (*shape[:-2], shape[-1], shape[-2])
    view.rewrite(root, "matmul", match["b"], view.before(root, "matrix_transpose", match["a"], known=known))


@rewrite(
    "attention",
    _formula(Apply("matmul", _QUERY, _TURNED_KEY, name="product"), lambda p: Apply("matmul", p, Any_("value"))),
)
def by_matmul(view: View, root: Node, match: Match) -> None:
    """`softmax(q @ k.T) @ v`, heads before the length axis or no heads."""
    _write(view, root, match, heads_last=False)


_SCORES = (
    Apply("einsum", _QUERY, _KEY, name="product")
    | Apply("einsum", _KEY, _QUERY, name="product")
)  # fmt: skip


@rewrite(
    "attention",
    _formula(_SCORES, lambda p: Apply("einsum", p, Any_("value")) | Apply("einsum", Any_("value"), p)),
)
def by_einsum(view: View, root: Node, match: Match) -> None:
    """The same by einsum, as Keras's MultiHeadAttention writes it."""
    product = view.nodes[match["product"]]
    laws = {
        _axes(product, key_at, root, value_at)
        for key_at, key in enumerate(product.inputs)
        for value_at, value in enumerate(root.inputs)
        if key == match["key"] and value == match["value"]
    }
    heads_last = next((last for last, law in _LAYOUTS.items() if law in laws), None)
    if heads_last is None:
        raise Refusal("its axes are neither [batch, heads, t, dim] nor [batch, t, heads, dim]")
    _write(view, root, match, heads_last=heads_last)


_LAYOUTS = {True: ("bthd", "bshd", "bsho", "btho"), False: ("bhtd", "bhsd", "bhso", "bhto")}
"""The axes of queries, keys, values and results: batch, heads, `t` query positions, `s` key positions."""


def _axes(product: Node, key_at: int, root: Node, value_at: int) -> tuple[str, str, str, str] | None:
    """The axes in the letters of `_LAYOUTS`, for scores `bhts`."""
    operands, scores = _letters(product)
    parts, result = _letters(root)
    if len(operands) != 2 or len(parts) != 2 or len(scores) != 4 or len(parts[1 - value_at]) != 4:
        return None
    of_scores = dict(zip(scores, "bhts", strict=True))
    of_shares = dict(zip(parts[1 - value_at], "bhts", strict=True))
    query, key = operands[1 - key_at], operands[key_at]
    return (
        "".join(of_scores.get(letter, "d") for letter in query),
        "".join(of_scores.get(letter, "d") for letter in key),
        "".join(of_shares.get(letter, "o") for letter in parts[value_at]),
        "".join(of_shares.get(letter, "o") for letter in result),
    )


def _letters(node: Node) -> tuple[list[str], str]:
    operands, _, result = str(node.attrs["equation"]).replace(" ", "").partition("->")
    return operands.split(","), result


def _write(view: View, root: Node, match: Match, *, heads_last: bool) -> None:
    operands = [match["query"], match["key"], match["value"]]
    dtypes = {view.dtype(ref) for ref in (*operands, root.name)}
    if len(dtypes) != 1 or not dtypes <= set(FLOATS):
        raise Refusal("its operands are not floats of one dtype")
    if match.get("swapped") is not None:  # queries are scaled before the transpose
        swapped = view.nodes[match["swapped"]]
        known = view.dtype(swapped.name), view.shape(swapped.name)
        operands[0] = view.before(root, "transpose", operands[0], known=known, perm=swapped.attrs["perm"])
    shapes = [view.shape(ref) for ref in operands]
    if any(shape is None or not 3 <= len(shape) <= 4 or len(shape) != len(shapes[0] or ()) for shape in shapes):
        raise Refusal("its operands are not known to have three or four axes each")
    scale = (match.get("scale") or 1.0) * (match.get("query_scale") or 1.0)
    scale /= (match.get("divisor") or 1.0) * (match.get("query_divisor") or 1.0)
    mask = mask_of(view, root, match, match["product"])
    empty = {"empty": True} if match.get("emptied") is not None else {}
    view.rewrite(root, "attention", *operands, *mask, scale=float(scale), heads_last=heads_last, **empty)


_FIRST = Apply(
    "attention",
    _heads_first(Any_("q")),
    _heads_first(Any_("k")),
    _heads_first(Any_("v")),
    name="inner",
    heads_last=False,
)


@rewrite("", _heads_first(_FIRST))
def heads_stay_last(view: View, root: Node, match: Match) -> None:
    """Removes transposes that move heads to the front only for attention, and back after it."""
    inner = view.nodes[match["inner"]]
    view.rewrite(
        root, "attention", match["q"], match["k"], match["v"], *inner.inputs[3:], **{**inner.attrs, "heads_last": True}
    )


def mask_of(view: View, root: Node, match: Match, scores: str) -> tuple[str, ...]:
    """The additive or boolean mask of the node `scores`, as an operand of `root`; empty if there is none."""
    mask, bias, off, minus = (match.get(name) for name in ("mask", "bias", "off", "minus"))
    ref = mask or bias or off or minus
    if ref is None:
        return ()
    dtype, rank, shape = view.dtype(scores), view.rank(ref), view.shape(ref)
    if rank is None or rank > (view.rank(scores) or 0):
        raise Refusal("its mask may have more axes than its scores")
    if mask and (view.dtype(mask) != "bool" or match["low"] > _LOW):
        raise Refusal(f"its mask sets scores to {match['low']}, which is too high to mask them")
    if (bias or minus) and view.dtype(ref) != dtype:
        raise Refusal("its mask has another dtype than its scores")
    if off:
        ref = view.before(root, "cast", off, known=(dtype, shape), dtype=dtype)
        return (view.before(root, "mul", ref, -match["lowered"], known=(dtype, shape)),)
    return (view.before(root, "neg", minus, known=(dtype, shape)),) if minus else (ref,)


_LOW = -1e4
"""A score low enough to vanish in any usual softmax: Keras writes -1e9, and -3e4 in float16."""


# -- the layer with its projections ---------------------------------------------------------------------------------------


def _projected(name: str) -> Pattern:
    return Apply("split_last", Apply("module", Any_(f"x_{name}"), name=name), name=f"{name}_heads")


_NAMES = ("query", "key", "value", "attention_output")
_HEADS = Apply("attention", *map(_projected, _NAMES[:3]), heads_last=True, name="attention")
_JOINED = Apply("join_last", _HEADS, count=2) | Apply("reshape", _HEADS, name="joined")


@rewrite("MultiHeadAttention", Apply("module", _JOINED, name="attention_output"))
def multi_head(view: View, root: Node, match: Match) -> None:
    """Four Linear layers of one scope, with Keras's names, around attention."""
    layers = {name: view.nodes[match[name]] for name in _NAMES}
    specs = {name: view.module_of(node, "Linear") for name, node in layers.items()}
    scope = str(root.attrs["module"]).rpartition(".")[0]
    if not scope or any(str(node.attrs["module"]) != f"{scope}.{name}" for name, node in layers.items()):
        raise Refusal(f"its projections are not {', '.join(_NAMES)} of one scope, so they stay beside it")
    linear = {name: spec.args for name, spec in specs.items() if spec is not None}
    if len(linear) != 4 or len({linear[name]["bias"] for name in _NAMES[:3]}) != 1:
        raise Refusal("its projections are not all nn.Linear with a bias, or all without")
    parted = {name: view.nodes[match[f"{name}_heads"]].attrs["sizes"] for name in _NAMES[:3]}
    heads = parted["query"][0]
    if any(len(sizes) != 2 or sizes[0] != heads for sizes in parted.values()):
        raise Refusal(f"its projections are split into {', '.join(map(str, parted.values()))}")
    if match.get("joined") and not _joins(view, match):
        raise Refusal("its heads are not merged before its output")
    attention = view.nodes[match["attention"]]
    args = {
        **{f"{name}_features": linear[name]["in_features"] for name in _NAMES[:3]},
        "out_features": linear["attention_output"]["out_features"],
        "heads": heads,
        "key_dim": parted["key"][1],
        "value_dim": parted["value"][1],
        "scale": attention.attrs["scale"],
        "bias": linear["query"]["bias"],
        "out_bias": linear["attention_output"]["bias"],
    }
    args |= {"empty": True} if attention.attrs.get("empty") else {}
    own = {f"{name}.{part}": f"{scope}.{name}.{part}" for name in _NAMES for part in ("weight", "bias")}
    own = {part: tensor for part, tensor in own.items() if tensor in view.store}
    if scope not in view.modules and view.name(scope, own) != scope:
        raise Refusal(f"the scope {scope!r} holds other weights too")
    operands = [match[f"x_{name}"] for name in _NAMES[:3]]
    view.module(root, "MultiHeadAttention", scope, args, *operands, *attention.inputs[3:])


def _joins(view: View, match: Match) -> bool:
    shape, joined = view.shape(match["attention"]), view.shape(match["joined"])
    return shape is not None and joined == (*shape[:-2], math.prod(shape[-2:]))
