"""Special functions and less common math. Floats keep their operand's dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Number, Spec, elementwise, op
from torch_towers.ops.math import pair

_special: Any = torch.special  # untyped


def _unary(name: str, function: Callable[[Tensor], Tensor], source: str) -> None:
    def apply(x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # torch has only float32 and float64 kernels
        found = function(wide)
        return (torch.where(x < 0, torch.inf, found) if "_k" in name else found).to(x.dtype)  # K is undefined there

    apply.__doc__ = f"`{name}(x)`, elementwise: `[...] -> [...]`. Source: tf.raw_ops.{source}."
    op(name=name)(apply)


for _name, _source in (
    ("i0", "BesselI0"),
    ("i0e", "BesselI0e"),
    ("i1", "BesselI1"),
    ("i1e", "BesselI1e"),
    ("modified_bessel_k0", "BesselK0"),
    ("modified_bessel_k1", "BesselK1"),
    ("scaled_modified_bessel_k0", "BesselK0e"),
    ("scaled_modified_bessel_k1", "BesselK1e"),
):
    _unary(_name, getattr(_special, _name), _source)


def _binary(name: str, function: Callable[[Tensor, Tensor], Tensor], source: str) -> None:
    def apply(a: Number, b: Number) -> Tensor:
        return function(*pair(a, b))

    apply.__doc__ = f"`{name}(a, b)`, elementwise with broadcasting. Source: tf.raw_ops.{source}."
    op(name=name)(apply)


def _incomplete_gamma(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, x: Tensor) -> Tensor:
    """NaN outside `a > 0, x >= 0`, and 0 if both are infinite, where torch returns limits."""
    inside = (a > 0) & (x >= 0)
    found = torch.where(torch.isinf(a) & torch.isinf(x), 0.0, function(a, x))
    return torch.where(inside, found, torch.nan)


def _gammainc(a: Tensor, x: Tensor) -> Tensor:
    return torch.where(x == 0, 0.0, _incomplete_gamma(_special.gammainc, a, x))


def _gammaincc(a: Tensor, x: Tensor) -> Tensor:
    return _incomplete_gamma(_special.gammaincc, a, x)


for _name, _function, _source in (
    ("gammainc", _gammainc, "Igamma"),
    ("gammaincc", _gammaincc, "Igammac"),
    ("nextafter", torch.nextafter, "NextAfter"),
):
    _binary(_name, _function, _source)


@op()
def approximate_equal(a: Tensor, b: Tensor, *, tolerance: float) -> Tensor:
    """Whether `a` and `b` differ by less than `tolerance`: `[...], [...] -> [...]` bool. Source:
    tf.raw_ops.ApproximateEqual."""
    return torch.abs(a - b) < torch.tensor(tolerance, dtype=torch.float32, device=a.device)


@op(infer=elementwise("uint8"))
def population_count(x: Tensor) -> Tensor:
    """The number of set bits of each integer: `[...] -> [...]` uint8. Source: tf.raw_ops.PopulationCount."""
    bits = x.contiguous().unsqueeze(-1).view(torch.uint8)
    counts = torch.tensor([number.bit_count() for number in range(256)], dtype=torch.uint8, device=x.device)
    return counts[bits.to(torch.int64)].sum(-1).to(torch.uint8)


@op()
def cumulative_logsumexp(x: Tensor, *, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Cumulative log-sum-exp along one axis: `[...] -> [...]`.

    `exclusive`: without the element itself, starting at -inf. Source: tf.raw_ops.CumulativeLogsumexp.
    """
    if reverse:
        x = x.flip(axis)
    total: Tensor = torch.logcumsumexp(x, axis)
    if exclusive:
        lowest = torch.full_like(x.narrow(axis, 0, min(1, x.shape[axis])), -torch.inf)
        total = torch.cat([lowest, total.narrow(axis, 0, max(x.shape[axis] - 1, 0))], axis)
    return total.flip(axis) if reverse else total


def _histogram_spec(x: Spec, bounds: Spec, bins: Spec, *, dtype: str) -> list[Spec]:
    return [(dtype, (None,))]


@op(stage="early", infer=_histogram_spec)
def histogram_fixed_width(x: Tensor, bounds: Tensor, bins: int, *, dtype: Dtype) -> Tensor:
    """The counts of values in `bins` equal bins, values out of range in the outer ones: `[...], [2] -> [bins]`.

    Source: tf.raw_ops.HistogramFixedWidth.
    """
    low, high = bounds.to(torch.float64).unbind()
    step = (high - low) / int(bins)
    places = torch.floor((x.to(torch.float64).reshape(-1) - low) / step).clamp(0, int(bins) - 1).to(torch.int64)
    return torch.bincount(places, minlength=int(bins)).to(torch_dtype(dtype))


def _truths(predictions: Spec, targets: Spec, k: Spec) -> list[Spec]:
    return [("bool", targets[1])]


@op(infer=_truths)
def in_top_k(predictions: Tensor, targets: Tensor, k: int) -> Tensor:
    """Whether the prediction for each row's target is among its `k` largest, including ties: `[n, classes], [n] -> [n]`
    bool.

    False for a target out of range and for rows with non-finite values. Source: tf.raw_ops.InTopKV2.
    """
    classes = predictions.shape[1]
    valid = (targets >= 0) & (targets < classes)
    own = predictions.gather(1, targets.to(torch.int64).clamp(0, max(classes - 1, 0)).unsqueeze(1))
    better = (predictions > own).sum(1)
    return valid & torch.isfinite(predictions).all(1) & (better < k)


def _without_last(x: Spec, n: Spec, **attrs: Any) -> list[Spec]:
    return [(x[0], None if x[1] is None else x[1][:-1])]


@op(infer=_without_last)
def nth_element(x: Tensor, n: int, *, largest: bool) -> Tensor:
    """The n-th smallest (or largest) of each row, counted from 0: `[..., m] -> [...]`. Source:
    tf.raw_ops.NthElement."""
    return torch.sort(x, dim=-1, descending=largest).values.select(-1, int(n))


@op(stage="early")
def unravel_index(x: Tensor, dims: Tensor) -> Tensor:
    """The coordinates of flat indices in an array of shape `dims`: `[n], [rank] -> [rank, n]`, `[] -> [rank]`.

    Source: tf.raw_ops.UnravelIndex.
    """
    strides = torch.cat([dims[1:].flip(0).cumprod(0).flip(0), dims.new_ones(1)]).to(dims.dtype)
    shape = [-1] + [1] * x.ndim
    return x.unsqueeze(0) // strides.reshape(shape) % dims.reshape(shape)


@op()
def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of each row with its label distribution, and its gradient: `[n, classes], [n, classes] -> [n],
    [n, classes]`.

    Source: tf.raw_ops.SoftmaxCrossEntropyWithLogits.
    """
    log = torch.log_softmax(logits, -1)
    return -(labels * log).sum(-1), torch.exp(log) - labels


@op()
def sparse_softmax_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of each row with its class index, and its gradient: `[n, classes], [n] -> [n], [n, classes]`.

    An index out of range gives NaN. Source: tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits.
    """
    classes = logits.shape[-1]
    valid = (labels >= 0) & (labels < classes)
    index = labels.to(torch.int64).clamp(0, max(classes - 1, 0)).unsqueeze(-1)
    log = torch.log_softmax(logits, -1)
    one = torch.zeros_like(logits).scatter(-1, index, 1.0)
    nan = torch.full((), torch.nan, dtype=logits.dtype, device=logits.device)
    loss = torch.where(valid, -log.gather(-1, index).squeeze(-1), nan)
    return loss, torch.where(valid.unsqueeze(-1), torch.exp(log) - one, nan)
