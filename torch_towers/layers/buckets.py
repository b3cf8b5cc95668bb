"""Hashing and discretization to ids, and encodings of ids."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Spec, Strings, elementwise, module
from torch_towers.ops.hashing import hash_bucket_fast, hash_bucket_strong
from torch_towers.ops.math import bucketize
from torch_towers.ops.segments import bincount


@module(stage="host", infer=elementwise("int64"))
class Hashing:
    """Hashes values into buckets: strings or integers `[...] -> [...]` int64.

    FarmHash without `salt`, SipHash with its two integers. Integers are hashed as decimal text. `mask_value`, if given,
    is bucket 0, and hashes are `1 .. num_bins - 1`. Source: Keras Hashing.
    """

    def __init__(
        self, num_bins: int, salt: tuple[int, int] | None = None, mask_value: bytes | int | None = None
    ) -> None:
        self._bins = num_bins if mask_value is None else num_bins - 1
        self._salt, self._mask = salt, mask_value

    def __call__(self, x: Tensor | Strings) -> Tensor:
        if self._salt:
            buckets = hash_bucket_strong(x, num_buckets=self._bins, key=self._salt)
        else:
            buckets = hash_bucket_fast(x, num_buckets=self._bins)
        if self._mask is None:
            return buckets
        masked = torch.as_tensor(x == self._mask)
        return torch.where(masked, 0, buckets + 1)


@module(stage="early")
class Discretization(nn.Module):
    """The bucket of each number, i.e. the number of boundaries less than or equal to it: `[...] -> [...]`. Source:
    Keras Discretization."""

    def __init__(self, boundaries: tuple[float, ...], dtype: Dtype = "int64") -> None:
        super().__init__()
        self.boundaries, self.dtype = tuple(boundaries), dtype

    def forward(self, x: Tensor) -> Tensor:
        return bucketize(x, boundaries=self.boundaries).to(torch_dtype(self.dtype))

    def extra_repr(self) -> str:
        return f"{len(self.boundaries)} boundaries"


def _encoded(x: Spec, *, num_tokens: int, dtype: str = "float32", **args: Any) -> list[Spec]:
    return [(dtype, None if x[1] is None else (*x[1][:-1], num_tokens))]


@module(infer=_encoded)
class CategoryEncoding(nn.Module):
    """Encodes rows of ids as vectors: `[n, ids] -> [n, num_tokens]`.

    "multi_hot" is 1 for each id that occurs, "count" its count, "tf_idf" the count times the weight `idf` of the id, a
    buffer. Errors: `InputError` for negative ids; ids of `num_tokens` or more are ignored. Source: Keras
    CategoryEncoding.
    """

    def __init__(
        self, num_tokens: int, output_mode: Literal["multi_hot", "count", "tf_idf"], dtype: Dtype = "float32"
    ) -> None:
        super().__init__()
        self.num_tokens, self.output_mode, self.dtype = num_tokens, output_mode, dtype
        if output_mode == "tf_idf":
            self.register_buffer("idf", torch.ones(num_tokens))

    def forward(self, ids: Tensor) -> Tensor:
        weights = torch.empty(0, dtype=torch_dtype(self.dtype), device=ids.device)
        counts = bincount(ids, self.num_tokens, weights, binary_output=self.output_mode == "multi_hot")
        return counts * self._buffers["idf"] if self.output_mode == "tf_idf" else counts  # type: ignore[operator]

    def extra_repr(self) -> str:
        return f"{self.num_tokens}, {self.output_mode}"
