"""Normalizations: torch's own where it has them, with TensorFlow's epsilons."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.graph.registry import module

LayerNorm = module()(nn.LayerNorm)
"""Zero mean and unit variance over the last axes, then scaled and shifted: `[..., *shape] -> [..., *shape]`.

Source: Keras LayerNormalization.
"""


RMSNorm = module()(nn.RMSNorm)
"""Divided by the root of the mean square over the last axes, then scaled: `[..., *shape] -> [..., *shape]`.

Source: Keras RMSNormalization, the norms of T5, Llama and Mistral.
"""


@module()
class OffsetRMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` whose scale is `1 + weight`: `[..., *shape] -> [..., *shape]`. Source: the norms of Gemma."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, 1.0 + self.weight, self.eps)


@module()
class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` as it is served, over the last axis: `[..., features] -> [..., features]`.

    It always normalizes with its running statistics, in training mode too, as an exported graph does. `scale` and `shift` say
    whether it has a weight and a bias. Source: Keras BatchNormalization at inference.
    """

    def __init__(self, num_features: int, eps: float, scale: bool = True, shift: bool = True) -> None:
        super().__init__(num_features, eps, affine=False)  # type: ignore[reportUnknownMemberType]
        self.num_batches_tracked = None
        self.weight = nn.Parameter(torch.ones(num_features)) if scale else None  # type: ignore[assignment]
        self.bias = nn.Parameter(torch.zeros(num_features)) if shift else None  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        factor, shift = self.line()
        return (input * factor).add_(shift)  # in place: fresh memory for many rows takes longer than the sum

    def line(self) -> tuple[Tensor, Tensor]:
        """What each feature is multiplied by, and what is added to it then: `[features], [features]`."""
        mean, variance, weight, bias = self.running_mean, self.running_var, self.weight, self.bias
        assert mean is not None and variance is not None
        factor = torch.rsqrt(variance + self.eps)
        if weight is not None:  # type: ignore[reportUnnecessaryComparison]
            factor = factor * weight
        shift = mean * factor
        shift = -shift if bias is None else bias - shift  # type: ignore[reportUnnecessaryComparison]
        return factor, shift

    def extra_repr(self) -> str:
        parts = [str(self.num_features), f"eps={self.eps:.6g}"]
        return ", ".join(parts + [f"{name}=None" for name in ("weight", "bias") if getattr(self, name) is None])


@module()
class L2Normalize(nn.Module):
    """`x` divided by its length over `axes`: `[...] -> [...]`.

    `x * min(rsqrt(max(sum(x²), eps)), limit)`: TensorFlow bounds the squared length, where `F.normalize` bounds the length.
    Source: tf.math.l2_normalize (`eps`), Keras 3 UnitNormalization (`limit`).
    """

    def __init__(self, axes: tuple[int, ...] = (-1,), eps: float = 0.0, limit: float = math.inf) -> None:
        super().__init__()
        self.axes, self.eps, self.limit = tuple(axes), eps, limit
        self.limited = math.isfinite(limit)  # asked here: torch.compile takes no `math.isfinite` of an attribute

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16 or x.dtype == torch.bfloat16:  # float16 holds neither 1e12 nor 1e-12
            return self._normalized(x.float()).to(x.dtype)
        return self._normalized(x)

    def _normalized(self, x: Tensor) -> Tensor:
        squares = torch.sum(x * x, self.axes, keepdim=True)
        scale = torch.rsqrt(torch.clamp(squares, min=self.eps) if self.eps else squares)
        return x * (torch.clamp(scale, max=self.limit) if self.limited else scale)

    def extra_repr(self) -> str:
        return f"axes={self.axes}, eps={self.eps}" + (f", limit={self.limit}" if math.isfinite(self.limit) else "")


@module()
class Normalization(nn.Module):
    """`(x - mean) / std`, with statistics that were learnt beforehand: `[..., features] -> [..., features]`.

    `shape` is that of the statistics, which are buffers. Source: Keras Normalization.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return str(tuple(self.mean.shape))
