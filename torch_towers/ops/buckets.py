"""Buckets with boundaries in a tensor, as TF Transform wrote them before `tf.raw_ops.Bucketize`."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Spec, op
from torch_towers.kernels.fast_path import readable


def _buckets_spec(x: Spec, boundaries: Spec) -> list[Spec]:
    return [("int32", x[1])]


@op(stage="early", infer=_buckets_spec)
def buckets_up_to(x: Tensor, boundaries: Tensor) -> Tensor:
    """The number of boundaries less than or equal to each value: `[...], [n] -> [...]` int32; NaN is above all
    boundaries.

    Both have the same dtype. Errors: `InputError` if the boundaries are not sorted.
    Source: `BucketizeWithInputBoundaries` of tensorflow.contrib.boosted_trees (quantile_ops.cc: `std::upper_bound`).
    """
    if readable(boundaries) and not bool((boundaries[:-1] <= boundaries[1:]).all()):
        raise InputError("Expected sorted boundaries")
    return torch.searchsorted(boundaries, x.contiguous(), right=True, out_int32=True)


@op(stage="early", infer=_buckets_spec)
def buckets_below(x: Tensor, boundaries: Tensor) -> Tensor:
    """The number of boundaries below each value, clamped to the last bucket: `[...], [n] -> [...]` int32, less than n.

    NaN is in the first bucket, and so is everything if there are no boundaries.
    Source: tf.raw_ops.BoostedTreesBucketize (`std::lower_bound` of quantile_ops.cc; its kernel left TensorFlow in 2.9).
    """
    below = torch.searchsorted(boundaries, x.contiguous(), out_int32=True)
    return torch.where(torch.isnan(x), 0, below.clamp(max=max(boundaries.shape[0] - 1, 0)))
