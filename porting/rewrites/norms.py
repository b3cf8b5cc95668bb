"""LayerNorm, BatchNorm, L2Normalize, Normalization: division by a norm or standard deviation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, Source, Weight, square
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from porting.rewrites.group_norm import lift_groups, standardized, weight
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node, node_of

_X = Any_("x")
_EPS = Number(name="eps")
_GAMMA, _BETA = weight("gamma"), weight("beta")

# -- LayerNorm ----------------------------------------------------------------------------------------------------------


@rewrite("LayerNorm", standardized(_X))
def layer_norm(view: View, root: Node, match: Match) -> str:
    """The formulas of Keras 3, tf.nn.moments and tf.nn.batch_normalization; over the space alone it is a GroupNorm."""
    shape = view.shape(match["x"])
    if not shape:
        raise Refusal("the rank of its input is not known")
    rank = len(shape)
    axes = {
        tuple(sorted(axis % rank for axis in view.nodes[match[name]].attrs["axes"])) for name in ("mean", "variance")
    }
    count = len(next(iter(axes)))
    if axes == {tuple(range(rank - count, rank))}:
        if _is_per_channel(view, match, shape, count):
            lift_groups(view, root, match, 1, (shape[1], 1))
            return "GroupNorm"
        return _lift_layer_norm(view, root, match, count, match["eps"])
    if axes != {tuple(range(1, rank - 1))} or not isinstance(shape[-1], int):
        raise Refusal(f"it normalizes over axes {sorted(axes)}, and nn.LayerNorm over the last ones")
    lift_groups(view, root, match, rank - 1, (shape[-1], 1))
    return "GroupNorm"


def _is_per_channel(view: View, match: Match, shape: tuple[Any, ...], count: int) -> bool:
    """Whether the scale and the shift have one number for each channel, on the second axis, before the `count` axes of the
    space."""
    found = [match.get(f"{name}_reshaped") or match.get(name) for name in ("gamma", "beta")]
    shapes = {(view.shape(ref) or ())[-count - 1 :] for ref in found if ref is not None}
    return len(shape) == count + 2 and isinstance(shape[1], int) and shapes == {(shape[1],) + (1,) * count}


_FUSED = Apply(
    "reshape",
    Apply(
        "batch_norm", Apply("reshape", _X, name="flat"), 1.0, 0.0, Any_("mean"), Any_("variance"), axis=1, name="norm"
    ),
    name="back",
)


@rewrite("LayerNorm", _FUSED * _GAMMA + _BETA | _FUSED * _GAMMA | _FUSED + _BETA)
def fused_layer_norm(view: View, root: Node, match: Match) -> str:
    """The formula of tf_keras: rows become channels of an image, normalized with statistics of a fused batch norm."""
    mean, norm = match["mean"], view.nodes[match["norm"]]
    statistics = view.node(mean)
    rows = view.shape(match["flat"])
    shape = view.shape(match["x"])
    if statistics is None or statistics.op != "batch_statistics" or statistics.inputs != (match["flat"],):
        raise Refusal("its statistics are not those of its own input")
    if (mean, match["variance"]) != (f"{statistics.name}:0", f"{statistics.name}:1") or statistics.attrs["axis"] != 1:
        raise Refusal("its statistics are not those of its own input")
    if rows is None or len(rows) != 4 or rows[0] != 1 or rows[3] != 1 or shape is None:
        raise Refusal("its rows are not reshaped as in tf_keras")
    count = len(view.shape(match.get("gamma") or match["beta"]) or ())
    inner = shape[len(shape) - count :]
    if (
        not all(isinstance(size, int) for size in inner)
        or rows[2] != math.prod(inner)
        or view.shape(match["back"]) != shape
    ):
        raise Refusal("its rows are not reshaped as in tf_keras")
    return _lift_layer_norm(view, root, match, count, float(norm.attrs["epsilon"]))


def _lift_layer_norm(view: View, root: Node, match: Match, count: int, eps: float) -> str:
    """`count` is the number of normalized axes. A shift without a scale is a class of its own."""
    shape = (view.shape(match["x"]) or ())[-count:]
    gamma, beta = match.get("gamma"), match.get("beta")
    if not all(isinstance(size, int) for size in shape):
        raise Refusal(f"the normalized sizes {list(shape)} are not fixed")
    for name in ("gamma", "beta"):
        if match.get(name) is not None:
            _check_fits(view, match, name, shape)
    weights = {part: ref for part, ref in (("weight", gamma), ("bias", beta)) if ref is not None}
    if list(weights) == ["bias"]:
        view.layer(root, "ShiftedLayerNorm", {"normalized_shape": shape, "eps": eps}, match["x"], weights=weights)
        return "ShiftedLayerNorm"
    args = {"normalized_shape": shape, "eps": eps, "elementwise_affine": bool(weights), "bias": beta is not None}
    if weights:
        view.layer(root, "LayerNorm", args, match["x"], weights=weights)
    else:
        view.module(root, "LayerNorm", view.scope(root, "layer_norm"), args, match["x"])
    return "LayerNorm"


def _check_fits(view: View, match: Match, name: str, shape: tuple[Any, ...]) -> None:
    """Checks that a scale or shift has the normalized shape."""
    found = view.shape(match[f"{name}_reshaped"] if match.get(f"{name}_reshaped") else match[name]) or ()
    if (
        view.shape(match[name]) != shape
        or found[len(found) - len(shape) :] != shape
        or any(s != 1 for s in found[: -len(shape)])
    ):
        raise Refusal(f"its {name} has shape {list(found)}, expected {list(shape)}")


# -- BatchNorm ----------------------------------------------------------------------------------------------------------

_RUNNING_MEAN, _RUNNING_VAR = weight("running_mean"), weight("running_var")
_INVERSE = Apply("rsqrt", _RUNNING_VAR + _EPS)


def _served(inv: Pattern) -> Pattern:
    return (
        _X * inv + (_BETA - _RUNNING_MEAN * inv)
        | _X * inv - _RUNNING_MEAN * inv
        | (_X - _RUNNING_MEAN) * inv + _BETA
        | (_X - _RUNNING_MEAN) * inv
    )  # fmt: skip


@rewrite("BatchNorm", _served(_INVERSE * _GAMMA) | _served(_INVERSE))
def batch_norm(view: View, root: Node, match: Match) -> None:
    """`x * inv + (beta - mean * inv)`, where only x is not a weight."""
    _lift_batch_norm(view, root, match, match["eps"])


@rewrite(
    "BatchNorm",
    Apply("batch_norm", _X, Weight("gamma") | Number(1.0), Weight("beta") | Number(0.0), Weight("running_mean"),
          Weight("running_var"), name="norm"),
)  # fmt: skip
def fused_batch_norm(view: View, root: Node, match: Match) -> None:
    """The formula of Keras 2 and TensorFlow 1 for images: one op, which TensorFlow serves as the formula above."""
    rank, axis = view.rank(match["x"]), root.attrs["axis"]
    if rank is None or axis % rank != rank - 1:
        raise Refusal(f"its channels are axis {axis}, and BatchNorm has them last")
    if view.dtype(match["x"]) != view.dtype(match["running_mean"]):
        raise Refusal(f"its input is {view.dtype(match['x'])} and its statistics {view.dtype(match['running_mean'])}")
    _lift_batch_norm(view, root, match, float(root.attrs["epsilon"]))


def _lift_batch_norm(view: View, root: Node, match: Match, eps: float) -> None:
    weights = {part: match[name] for part, name in
               (("running_mean", "running_mean"), ("running_var", "running_var"), ("weight", "gamma"), ("bias", "beta"))
               if match.get(name) is not None}  # fmt: skip
    shape = view.shape(match["x"])
    features = shape[-1] if shape else None
    for part, ref in weights.items():
        if not isinstance(features, int) or view.shape(ref) != (features,):
            raise Refusal(f"its {part} has shape {list(view.shape(ref) or ())}, expected [{features}]")
    order = ("weight", "bias", "running_mean", "running_var")
    args = {"num_features": features, "eps": eps, "scale": "weight" in weights, "shift": "bias" in weights}
    view.layer(root, "BatchNorm", args, match["x"], weights={part: weights[part] for part in order if part in weights})


# -- L2Normalize --------------------------------------------------------------------------------------------------------

_SQUARES = Apply("reduce_sum", square(_X), keepdim=True, name="sum")
_BOUNDED = Apply("maximum", _SQUARES, _EPS)
_SCALES = (
    Apply("rsqrt", _BOUNDED)
    | Apply("minimum", Apply("rsqrt", _SQUARES), Number(name="limit"))
    | Apply("rsqrt", _SQUARES)
)  # fmt: skip


@rewrite("L2Normalize", _X * _SCALES)
def l2_normalize(view: View, root: Node, match: Match) -> None:
    """`x * rsqrt(max(sum(x²), eps))`."""
    if view.dtype(match["x"]) not in FLOATS or view.shape(root.name) != view.shape(match["x"]):
        raise Refusal("its operand is not known to be floats of the result's shape")
    rank = view.rank(match["x"])
    axes = tuple(view.nodes[match["sum"]].attrs["axes"])
    if rank is not None and len(axes) == 1:
        axes = (axes[0] % rank - rank,)  # from the end, independent of leading axes
    args: dict[str, Any] = {"axes": axes}
    if match.get("eps") is not None:
        args["eps"] = match["eps"]
    if match.get("limit") is not None:
        args["limit"] = match["limit"]
    view.module(root, "L2Normalize", view.scope(root, "l2_normalize"), args, match["x"])


# -- Normalization ------------------------------------------------------------------------------------------------------

_MEAN_SOURCE = Source("mean")
_STD = Source("std", frozenset({"constant"})) | Apply(
    "maximum", Apply("sqrt", Source("variance")), Number(name="floor")
)


@rewrite("Normalization", (_X - _MEAN_SOURCE) / _STD)
def normalization(view: View, root: Node, match: Match) -> None:
    """`(x - mean) / max(sqrt(variance), 1e-7)`; the denominator is already folded if the statistics are constant."""
    mean = view.tensor(match["mean"])
    std = _deviation(view, match)
    result, shape = view.shape(root.name), view.shape(match["x"])
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor) or not mean.is_floating_point():
        raise Refusal("its statistics are not floats")
    if mean.shape != std.shape or mean.dtype != std.dtype:
        raise Refusal(f"its mean is {list(mean.shape)} and its deviation {list(std.shape)}")
    if shape is None or shape != result:
        raise Refusal("its statistics have more axes than its input")
    for name in ("mean", "variance"):
        ref = match.get(name)
        if ref is not None and view.nodes[node_of(ref)].op == "parameter" and len(view.consumers(ref)) > 1:
            raise Refusal(f"its {name} {ref!r} is a weight that is used elsewhere too")
    name = view.scope(root, "normalization", "mean", "std")
    view.store[f"{name}.mean"], view.store[f"{name}.std"] = mean.contiguous(), std.contiguous()
    view.module(root, "Normalization", name, {"shape": tuple(mean.shape)}, match["x"])


def _deviation(view: View, match: Match) -> Any:
    if match.get("std") is not None:
        return view.tensor(match["std"])
    variance = view.tensor(match["variance"])
    return torch.clamp(torch.sqrt(variance), min=match["floor"]) if isinstance(variance, Tensor) else None
