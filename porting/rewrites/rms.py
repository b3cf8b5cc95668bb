"""nn.RMSNorm: division by the root mean square."""

from __future__ import annotations

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, Weight, square
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_X = Any_("x")
_MEAN_SQUARE = Apply("reduce_mean", square(_X), keepdim=True, name="mean") + Number(name="eps")
_ROOT = Apply("sqrt", _MEAN_SQUARE)
_INVERSE = Apply("rsqrt", _MEAN_SQUARE) | Apply("reciprocal", _ROOT) | Number(1.0) / _ROOT
_WEIGHT = Weight("weight") | Apply("reshape", Weight("weight"), name="reshaped")


def _scaled(scale: Pattern) -> Pattern:
    """`x` divided by the RMS and times `scale`, in any order."""
    return (_X * _INVERSE) * scale | _X * (_INVERSE * scale) | (_X / _ROOT) * scale | (_X * scale) * _INVERSE


@rewrite("RMSNorm", _scaled(_WEIGHT))
def rms_norm(view: View, root: Node, match: Match) -> None:
    """`weight * x * rsqrt(mean(x²) + eps)`, as in T5, Llama and Keras 3."""
    _lift(view, root, match, "RMSNorm")


@rewrite("OffsetRMSNorm", _scaled(_WEIGHT + 1.0))
def offset_rms_norm(view: View, root: Node, match: Match) -> None:
    """`(1 + weight) * x * rsqrt(mean(x²) + eps)`, as in Gemma."""
    _lift(view, root, match, "OffsetRMSNorm")


@rewrite("RMSNorm", _X * _INVERSE | _X / _ROOT)
def bare_rms_norm(view: View, root: Node, match: Match) -> None:
    """`x * rsqrt(mean(x²) + eps)`, without a scale of the normalized axes."""
    shape = _normalized(view, match)
    args = {"normalized_shape": shape, "eps": match["eps"], "elementwise_affine": False}
    view.module(root, "RMSNorm", view.scope(root, "rms_norm"), args, match["x"])


def _lift(view: View, root: Node, match: Match, kind: str) -> None:
    shape, weight = _normalized(view, match), view.shape(match["weight"])
    if match.get("reshaped") is not None:
        broadcast = view.shape(match["reshaped"]) or ()
        if broadcast[len(broadcast) - len(shape) :] != shape or any(size != 1 for size in broadcast[: -len(shape)]):
            raise Refusal(f"its scale is reshaped to {list(broadcast)}, expected {list(shape)}")
    if weight != shape:
        raise Refusal(f"its scale has shape {list(weight or ())}, expected {list(shape)}")
    args = {"normalized_shape": shape, "eps": match["eps"]}
    view.layer(root, kind, args, match["x"], weights={"weight": match["weight"]})


def _normalized(view: View, match: Match) -> tuple[int, ...]:
    """The sizes of the normalized axes, which must be the last ones."""
    shape, axes = view.shape(match["x"]), view.nodes[match["mean"]].attrs["axes"]
    if shape is None or view.dtype(match["x"]) not in FLOATS or not axes:
        raise Refusal("its operand is not known to be floats of a known rank")
    last = tuple(sorted(axis % len(shape) for axis in axes))
    if last != tuple(range(len(shape) - len(last), len(shape))):
        raise Refusal(f"it normalizes over axes {list(last)}, and nn.RMSNorm over the last ones")
    sizes = tuple(size for size in shape[-len(last) :] if isinstance(size, int))
    if len(sizes) != len(last):
        raise Refusal(f"the normalized sizes {list(shape[-len(last) :])} are not fixed")
    return sizes
