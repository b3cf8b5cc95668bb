"""Normalizations: torch's own where possible, with TensorFlow's epsilons."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.graph.registry import module

LayerNorm = module()(nn.LayerNorm)
"""Zero mean and unit variance over the last axes, then scale and shift: `[..., *shape] -> [..., *shape]`.

Source: Keras LayerNormalization.
"""


@module()
class ShiftedLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` with a shift and no scale, which torch's own class does not make: `[..., *shape] -> [..., *shape]`.

    Source: Keras LayerNormalization with scale=False.
    """

    def __init__(self, normalized_shape: tuple[int, ...], eps: float) -> None:
        super().__init__(list(normalized_shape), eps, elementwise_affine=False)  # type: ignore[reportUnknownMemberType]
        self.bias = nn.Parameter(torch.zeros(normalized_shape))

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps:.6g}, weight=None"


RMSNorm = module()(nn.RMSNorm)
"""Divides by the root mean square over the last axes, then scales: `[..., *shape] -> [..., *shape]`.

Source: Keras RMSNormalization, the norms of T5, Llama and Mistral.
"""


@module()
class OffsetRMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` whose scale is `1 + weight`: `[..., *shape] -> [..., *shape]`. Source: the norms of Gemma."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, 1.0 + self.weight, self.eps)


@module()
class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` for inference, over the last axis: `[..., features] -> [..., features]`.

    It always uses its running statistics, in training mode too, like an exported graph. `scale` and `shift`:
    whether it has a weight and a bias. Source: Keras BatchNormalization at inference.
    """

    def __init__(self, num_features: int, eps: float, scale: bool = True, shift: bool = True) -> None:
        super().__init__(num_features, eps, affine=False)  # type: ignore[reportUnknownMemberType]
        self.num_batches_tracked = None
        self.weight = nn.Parameter(torch.ones(num_features)) if scale else None  # type: ignore[assignment]
        self.bias = nn.Parameter(torch.zeros(num_features)) if shift else None  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        factor, shift = self.line()
        return (input * factor).add_(shift)  # in-place: allocating for many rows takes longer than the sum

    def line(self) -> tuple[Tensor, Tensor]:
        """The factor and the shift of each feature: `[features], [features]`."""
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
class GroupNorm(nn.GroupNorm):
    """Zero mean and unit variance of each group of channels: `[batch, *space, channels] -> [batch, *space, channels]`.

    Float16 and bfloat16 are computed as float32. `scale` and `shift`: whether it has a weight and a bias, of the
    channels. The variance is the mean of squared differences; that of `nn.GroupNorm` with channels last is a difference
    of means, which loses all digits of pixels far from zero. Source: Keras GroupNormalization.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float, scale: bool = True, shift: bool = True,
        channels_last: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_groups, num_channels, eps, affine=False)  # type: ignore[reportUnknownMemberType]
        self.channels_last = channels_last
        self.weight = nn.Parameter(torch.ones(num_channels)) if scale else None  # type: ignore[assignment]
        self.bias = nn.Parameter(torch.zeros(num_channels)) if shift else None  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        x = input if self.channels_last else input.movedim(1, -1)
        rows = x.unsqueeze(1).flatten(1, -2)  # [batch, places, channels]
        rows = rows.float() if x.dtype == torch.float16 or x.dtype == torch.bfloat16 else rows
        rows = rows - self._average(rows)
        factor = torch.rsqrt(self._average(rows * rows) + self.eps)
        rows = rows * (factor if self.weight is None else factor * self.weight)  # type: ignore[reportUnnecessaryComparison]
        rows = rows if self.bias is None else rows.add_(self.bias)  # type: ignore[reportUnnecessaryComparison]
        x = rows.reshape(x.shape).to(x.dtype)
        return x if self.channels_last else x.movedim(-1, 1)

    def _average(self, rows: Tensor) -> Tensor:
        """The mean of each group, for each of its channels: `[batch, places, channels] -> [batch, 1, channels]`."""
        size = self.num_channels // self.num_groups
        means = rows.mean(1).view(rows.shape[0], self.num_groups, size).mean(-1)
        return means.repeat_interleave(size, -1).unsqueeze(1)

    def extra_repr(self) -> str:
        parts = [f"{self.num_groups}, {self.num_channels}, eps={self.eps:.6g}"]
        parts += [f"{name}=None" for name in ("weight", "bias") if getattr(self, name) is None]
        return ", ".join(parts if self.channels_last else [*parts, "channels_last=False"])


@module()
class L2Normalize(nn.Module):
    """`x` divided by its L2 norm over `axes`: `[...] -> [...]`.

    `x * min(rsqrt(max(sum(x²), eps)), limit)`: TensorFlow bounds the squared norm, `F.normalize` the norm.
    Source: tf.math.l2_normalize (`eps`), Keras 3 UnitNormalization (`limit`).
    """

    def __init__(self, axes: tuple[int, ...] = (-1,), eps: float = 0.0, limit: float = math.inf) -> None:
        super().__init__()
        self.axes, self.eps, self.limit = tuple(axes), eps, limit
        self.limited = math.isfinite(
            limit
        )  # computed here: torch.compile does not trace `math.isfinite` of an attribute

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float16 or x.dtype == torch.bfloat16:  # float16 cannot represent 1e12 or 1e-12
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
    """`(x - mean) / std` with precomputed statistics: `[..., features] -> [..., features]`.

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
