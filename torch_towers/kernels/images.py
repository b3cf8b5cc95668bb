"""Interpolation of images in the native core, or None if torch ops must do the work instead."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torch_towers.kernels import native
from torch_towers.kernels.fast_path import plain


def bilinear(x: Tensor, sizes: tuple[int, int], scales: tuple[float, float], half: bool) -> Tensor | None:
    """Bilinear interpolation of float32 images: `[batch, h, w, dim] -> [batch, height, width, dim]`.

    `scales`: source pixels per pixel of the result, down and along. `half`: whether coordinates are those of centres.
    """
    if native.core is None or not x.is_cpu or x.dtype != torch.float32 or x.ndim != 4 or not plain(x):
        return None
    out = np.empty((x.shape[0], *sizes, x.shape[3]), np.float32)
    images = x.detach().contiguous().numpy()  # type: ignore[reportUnknownMemberType]
    done = native.core.resize_bilinear(images, out, images.shape, sizes, scales, half)
    return torch.from_numpy(out) if done else None  # type: ignore[reportUnknownMemberType]
