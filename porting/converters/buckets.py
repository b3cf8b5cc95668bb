"""Buckets of TF Transform before 0.23. TensorFlow 2.21 has no kernel for these ops; their semantics come from old
sources."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.converters.math import cast

Emit = ConvertingEmitter


@converter("BucketizeWithInputBoundaries")
def bucketize_with_input_boundaries(t: Emit, x: Any, boundaries: Any) -> Any:
    """Boundaries are float32 and are compared in the dtype of the values: for integers they are truncated."""
    flat = t.reshape(cast(t, boundaries, SrcT="float32", DstT=x.dtype), -1)
    return t.buckets_up_to(x, flat)


@converter("BoostedTreesBucketize", outputs=("buckets",), ignores=("num_features",))
def boosted_trees_bucketize(t: Emit, *operands: Any) -> list[Any]:
    """A vector of values and one of boundaries per feature."""
    count = len(operands) // 2
    return [t.buckets_below(x, edges) for x, edges in zip(operands[:count], operands[count:], strict=True)]
