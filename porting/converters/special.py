"""Special functions, counts and losses."""

from __future__ import annotations

from typing import Any

import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Constant, Dimensions, constant
from porting.converters.math import add_n, binary, unary
from torch_towers.graph.dtypes import torch_dtype

Emit = ConvertingEmitter

UNARY = {
    "BesselI0": "i0", "BesselI0e": "i0e", "BesselI1": "i1", "BesselI1e": "i1e", "BesselK0": "modified_bessel_k0",
    "BesselK1": "modified_bessel_k1", "BesselK0e": "scaled_modified_bessel_k0", "BesselK1e": "scaled_modified_bessel_k1",
    "PopulationCount": "population_count",
}  # fmt: skip
BINARY = {
    "Igamma": "gammainc", "Igammac": "gammaincc", "NextAfter": "nextafter",
}  # fmt: skip


for _op, _name in UNARY.items():
    unary(_op, _name)
for _op, _name in BINARY.items():
    binary(_op, _name)


@converter("AccumulateNV2", ignores=("shape",))
def accumulate_n(t: Emit, *xs: Any) -> Any:
    """A sum that starts at 0, so its result is never -0.0."""
    return t.add(add_n(t, *xs), constant(torch.zeros((), dtype=torch_dtype(xs[0].dtype))))


@converter("ApproximateEqual")
def approximate_equal(t: Emit, a: Any, b: Any, *, tolerance: float = 1e-5) -> Any:
    return t.approximate_equal(t.tensor(a), t.tensor(b), tolerance=tolerance)


@converter("CumulativeLogsumexp")
def cumulative_logsumexp(t: Emit, x: Any, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Any:
    return t.cumulative_logsumexp(x, axis=axis, exclusive=exclusive, reverse=reverse)


@converter("HistogramFixedWidth")
def histogram_fixed_width(t: Emit, x: Any, bounds: Any, bins: Dimensions, *, dtype: str = "int32") -> Any:
    return t.histogram_fixed_width(t.tensor(x), t.tensor(bounds), *bins, dtype=dtype)


@converter("InTopK")
def in_top_k(t: Emit, predictions: Any, targets: Any, *, k: int) -> Any:
    return t.in_top_k(predictions, targets, k)


@converter("InTopKV2")
def in_top_k_v2(t: Emit, predictions: Any, targets: Any, k: Dimensions) -> Any:
    return t.in_top_k(predictions, targets, *k)


@converter("NthElement")
def nth_element(t: Emit, x: Any, n: Dimensions, *, reverse: bool = False) -> Any:
    return t.nth_element(x, *n, largest=reverse)


@converter("UnravelIndex")
def unravel_index(t: Emit, x: Any, dims: Any) -> Any:
    return t.unravel_index(t.tensor(x), t.tensor(dims))


@converter("SoftmaxCrossEntropyWithLogits", outputs=("loss", "backprop"))
def softmax_cross_entropy(t: Emit, logits: Any, labels: Any) -> Any:
    return t.softmax_cross_entropy(logits, t.tensor(labels))


@converter("SparseSoftmaxCrossEntropyWithLogits", outputs=("loss", "backprop"))
def sparse_softmax_cross_entropy(t: Emit, logits: Any, labels: Any) -> Any:
    return t.sparse_softmax_cross_entropy(logits, t.tensor(labels))


@converter("ToBool")
def to_bool(t: Emit, x: Any) -> Any:
    """A number is true unless it is 0, a string unless it is empty, a tensor of rank 1 or more if it has elements."""
    if x.shape != ():
        total = t.numel(x, dtype="int64")
        return t.not_equal(total, Constant(constant(0).array))
    return t.not_equal(x, constant(b"") if x.dtype == "string" else t.zeros_like(x))
