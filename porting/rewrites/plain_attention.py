"""Attention and AdditiveAttention: a softmax of weighted scores, without projections."""

from __future__ import annotations

from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Pattern, Refusal, Weight
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from porting.rewrites.attention import mask_of, masked
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node


def _swaps_last(perm: Any) -> bool:
    return perm is not None and tuple(perm) == (0, 2, 1)


def _last(axes: Any) -> bool:
    return axes is not None and tuple(axes) in ((-1,), (3,))


_QUERY, _KEY, _SCALE = Any_("query"), Any_("key"), Weight("scale")
_TURNED = Apply("matrix_transpose", _KEY) | Apply("transpose", _KEY, perm=_swaps_last)
_PAIRS = Apply("unsqueeze", _QUERY, axis=lambda axis: axis in (2, -2)) + Apply(
    "unsqueeze", _KEY, axis=lambda axis: axis in (1, -3)
)


def _values(scores: Pattern) -> Pattern:
    return Apply("matmul", Apply("softmax", masked(scores)), Any_("value"))


def _added(p: Pattern, name: str) -> Pattern:
    """The sum of `p` over the last axis."""
    return Apply("reduce_sum", p, axes=_last, keepdim=False, name=name)


_PRODUCT = Apply("matmul", _QUERY, _TURNED, name="scores")
_CONCAT = _added(Apply("tanh", _SCALE * _PAIRS), "scores") | _added(Apply("tanh", _PAIRS), "scores")


@rewrite("Attention", _values(_PRODUCT * _SCALE))
def scaled(view: View, root: Node, match: Match) -> None:
    """`softmax(scale * q @ k.T) @ v`, where `scale` is a weight."""
    _check_numbers(view, match, "scale")
    _write(view, root, match, "Attention", {"use_scale": True}, {"scale": match["scale"]})


@rewrite("Attention", _values(Weight("concat") * _CONCAT))
def by_sums(view: View, root: Node, match: Match) -> None:
    """`softmax(weight * sum(tanh(scale * (q + k)))) @ v`, with and without `scale`."""
    _check_numbers(view, match, "scale", "concat")
    scaled = match.get("scale") is not None
    weights = {"scale": match["scale"]} if scaled else {}
    args = {"use_scale": scaled, "score_mode": "concat"}
    _write(view, root, match, "Attention", args, {**weights, "concat_score_weight": match["concat"]})


@rewrite("AdditiveAttention", _values(_added(_SCALE * Apply("tanh", _PAIRS), "scores")))
def additive(view: View, root: Node, match: Match) -> None:
    """`softmax(sum(scale * tanh(q + k))) @ v`, where `scale` is a vector."""
    shape, dim = view.shape(match["scale"]), (view.shape(match["query"]) or (None,))[-1]
    if shape is None or shape != (dim,):
        raise Refusal(f"its scale has shape {list(shape or ())}, expected [{dim}]")
    _write(view, root, match, "AdditiveAttention", {"dim": dim}, {"scale": match["scale"]})


@rewrite("AdditiveAttention", _values(_added(Apply("tanh", _PAIRS), "scores")))
def additive_without_scale(view: View, root: Node, match: Match) -> None:
    """`softmax(sum(tanh(q + k))) @ v`, without weights."""
    dim = (view.shape(match["query"]) or (None,))[-1]
    if not isinstance(dim, int):
        raise Refusal("the size of its queries is not known")
    _write(view, root, match, "AdditiveAttention", {"dim": dim, "use_scale": False}, {})


def _check_numbers(view: View, match: Match, *names: str) -> None:
    for name in names:
        if match.get(name) is not None and view.shape(match[name]) != ():
            raise Refusal(f"its weight {match[name]!r} is not one number")


def _write(view: View, root: Node, match: Match, kind: str, args: dict[str, Any], weights: dict[str, str]) -> None:
    operands = [match[name] for name in ("query", "key", "value")]
    dtypes = {view.dtype(ref) for ref in (*operands, *weights.values())}
    if len(dtypes) != 1 or not dtypes <= set(FLOATS) or any(view.rank(ref) != 3 for ref in operands):
        raise Refusal("its operands are not floats [n, length, dim] of one dtype")
    mask = mask_of(view, root, match, match["scores"])
    if weights:
        view.layer(root, kind, args, *operands, *mask, weights=weights)
    else:
        view.module(root, kind, view.scope(root, "attention"), args, *operands, *mask)
