"""GroupNorm: a group of channels, with zero mean and unit variance over all places."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from porting.lifting.patterns import Any_, Apply, Match, Number, Pattern, Refusal, Weight, square
from porting.lifting.registry import rewrite
from porting.lifting.view import View
from torch_towers.graph.dtypes import FLOATS
from torch_towers.graph.graph import Node

_NAMES = {"weight": "gamma", "bias": "beta"}


def weight(name: str) -> Pattern:
    """A weight, optionally reshaped with axes of length one for broadcasting."""
    return Weight(name) | Apply("reshape", Weight(name), name=f"{name}_reshaped")


def averaged(p: Pattern, name: str) -> Pattern:
    """The mean of `p`."""
    return Apply("reduce_mean", p, keepdim=True, name=name)


_EPS = Number(name="eps")
_X, _GAMMA, _BETA = Any_("x"), weight("gamma"), weight("beta")


def standardized(x: Pattern, average: Callable[[Pattern, str], Pattern] = averaged) -> Pattern:
    """`x` with zero mean and unit variance, both made by `average`; times gamma and plus beta, both optional.

    In the orders of Keras 3, tf.nn.batch_normalization, tf.contrib.layers, and of those who write it by hand.
    """
    mean = average(x, "mean")
    deviation = average(Apply("squared_difference", x, mean) | square(x - mean), "variance") + _EPS
    inv, std = Apply("rsqrt", deviation), Apply("sqrt", deviation)
    centred = (x - mean) * inv | (x - mean) / std
    scaled, shift = inv * _GAMMA, mean * inv
    return (
        x * scaled + (_BETA - mean * scaled | _BETA - shift * _GAMMA)
        | x * scaled - mean * scaled
        | x * inv + (_BETA - shift)
        | x * inv - shift
        | (x - mean) * scaled + _BETA
        | (x - mean) * scaled
        | centred * _GAMMA + _BETA
        | centred * _GAMMA
        | centred + _BETA
        | centred
    )


_APART = Apply("reshape", _X, name="apart")
_GROUPS = Apply("cast", _APART, name="wide") | _APART


def _weighted(p: Pattern, name: str) -> Pattern:
    """The mean of `p`, also as tf_keras writes it: tf.nn.weighted_moments, where each weight is 1."""
    count = Apply("reduce_sum", Number(1.0) + Number(0.0), keepdim=True, name=f"{name}_count")
    return averaged(p, name) | Apply("div_no_nan", Apply("reduce_sum", p, keepdim=True, name=name), count)


_NORM = standardized(_GROUPS, _weighted)
_BACK = Apply("reshape", Apply("cast", _NORM) | _NORM, name="back")


@rewrite("GroupNorm", _BACK * _GAMMA + _BETA | _BACK * _GAMMA | _BACK + _BETA | _BACK)
def group_norm(view: View, root: Node, match: Match) -> None:
    """Channels reshaped to groups, standardized, and reshaped back; scale and shift inside or behind."""
    x, apart = view.shape(match["x"]), view.shape(match["apart"])
    if x is None or apart is None or len(apart) != len(x) + 1:
        raise Refusal("its channels are not reshaped to groups")
    axis = _kept_axis(view, match, len(apart))
    groups, size = apart[axis : axis + 2]
    if x[:axis] != apart[:axis] or x[axis + 1 :] != apart[axis + 2 :] or None in apart:
        raise Refusal(f"it reshapes {list(x)} to {list(apart)}, which are not groups of one axis")
    if not all(isinstance(each, int) for each in (x[axis], groups, size)):
        raise Refusal("the number of its channels is not fixed")
    if view.shape(match["back"]) != x:
        raise Refusal("its groups are not reshaped to channels again")
    for name in ("mean_count", "variance_count"):
        if match.get(name) and view.shape(view.nodes[match[name]].inputs[0]) != apart:
            raise Refusal("its weights are not one for each value")
    lift_groups(view, root, match, axis, (groups, size))


def _kept_axis(view: View, match: Match, rank: int) -> int:
    """The only axis that is not reduced, besides the first one."""
    reductions = [match[name] for name in ("mean", "variance")]
    reductions += [match[f"{name}_count"] for name in ("mean", "variance") if match.get(f"{name}_count")]
    axes = {tuple(sorted(axis % rank for axis in view.nodes[name].attrs["axes"])) for name in reductions}
    kept = [axis for axis in range(1, rank) if axis not in next(iter(axes))]
    if len(axes) != 1 or len(kept) != 1 or 0 in next(iter(axes)):
        raise Refusal(f"it averages over axes {sorted(axes)}, and nn.GroupNorm over all but the rows and groups")
    return kept[0]


def lift_groups(view: View, root: Node, match: Match, axis: int, sizes: tuple[int, int]) -> None:
    """`axis` has the channels of `x`, and `sizes` are the number of groups and of channels in each."""
    x, shape, channels = match["x"], view.shape(match["x"]) or (), math.prod(sizes)
    half, wide = view.dtype(x) in ("float16", "bfloat16"), match.get("wide")
    if view.dtype(x) not in FLOATS or half != (wide is not None and view.dtype(wide) == "float32"):
        raise Refusal("it does not compute floats at their own precision, and halves as float32")
    if (view.dtype(root.name), view.shape(root.name)) != (view.dtype(x), shape):
        raise Refusal("its result has another dtype or shape than its operand")
    if axis not in (1, len(shape) - 1):
        raise Refusal("its channels are neither the second axis nor the last one")
    weights = {part: match[name] for part, name in _NAMES.items() if match.get(name)}
    own = {part: _per_channel(view, match, _NAMES[part], axis, sizes) for part in weights}
    values = {part: value for part, value in own.items() if value is not None}
    args: dict[str, Any] = {"num_groups": sizes[0], "num_channels": channels, "eps": match["eps"]}
    args |= {"scale": "weight" in weights, "shift": "bias" in weights, "channels_last": axis != 1}
    if weights:
        view.layer(root, "GroupNorm", args, x, weights=weights, values=values)
    else:
        view.module(root, "GroupNorm", view.scope(root, "group_norm"), args, x)


def _per_channel(view: View, match: Match, name: str, axis: int, sizes: tuple[int, int]) -> Any:
    """The numbers of a scale or shift, as a vector if the weight is none.

    There must be one per channel, on the axis of the channels or on those of the groups.
    """
    channels, rank = math.prod(sizes), view.rank(match["x"]) or 0
    found = view.shape(match.get(f"{name}_reshaped") or match[name]) or ()
    axes = [(channels,), sizes] if match.get("apart") else [(channels,)]
    broadcast = [(1,) * axis + own + (1,) * (rank - axis - 1) for own in axes]
    if all((1,) * (len(shape) - len(found)) + found != shape for shape in broadcast):
        raise Refusal(f"its {name} has shape {list(found)}, and not one number per channel")
    if view.shape(match[name]) == (channels,):
        return None
    if len(view.consumers(match[name])) > 1:
        raise Refusal(f"its weight {match[name]!r} is not a vector, and is also used by other ops")
    return view.tensor(match[name]).reshape(-1)
