"""Lookups: tokens to ids, with what becomes of unknown tokens and of the mask token. Each is one pass over its elements."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers import native
from torch_towers.dtypes import torch_dtype
from torch_towers.errors import CheckpointError
from torch_towers.ops.hashing import hash_bucket_fast
from torch_towers.ops.strings import strings
from torch_towers.registry import Spec, Strings, module


def _ids_spec(x: Spec, *, dtype: str = "int64", **args: Any) -> list[Spec]:
    return [(dtype, x[1])]


def items(x: Tensor | Strings) -> list[Any]:
    """The elements of a vector as Python's own."""
    values: Any = x
    return values.tolist()


class Vocabulary:
    """The ids of tokens. Token i of `vocabulary` is `first_id + i`, any other token `oov_id`.

    With `oov_buckets` an unknown token is `oov_id` plus its hash (FarmHash, or the rest of the division for integers) modulo
    that number. `mask_token` is `mask_id`, be it in the vocabulary or not.
    """

    def __init__(
        self,
        vocabulary: Tensor | Strings,
        first_id: int,
        oov_id: int,
        oov_buckets: int = 0,
        mask_token: bytes | int | None = None,
        mask_id: int = 0,
    ) -> None:
        if vocabulary.ndim != 1:
            raise CheckpointError(f"a vocabulary has shape {list(vocabulary.shape)}, expected one axis")
        tokens = items(vocabulary)
        self.oov_id, self.oov_buckets = oov_id, oov_buckets
        self._id_of: dict[Any, int] = dict(zip(tokens, range(first_id, first_id + len(tokens)), strict=True))
        if len(self._id_of) != len(tokens):
            raise CheckpointError("a vocabulary holds a token twice")
        if mask_token is not None:
            self._id_of[mask_token] = mask_id
        self.size = len(tokens)

    def array(self, tokens: list[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The id of each token: `[n]` int64."""
        if native.core is not None and not self.oov_buckets:
            out = np.empty(len(tokens), np.int64)
            if native.core.lookup(self._id_of, tokens, self.oov_id, out):
                return out
        return np.array(self.ids(tokens), np.int64)

    def rows(self, texts: list[bytes], width: int, pad_id: int) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """The ids of the first `width` tokens between white space of each text: `[n, width]`; None where no fast way is there."""
        if native.core is None or self.oov_buckets:
            return None
        out = np.empty((len(texts), width), np.int64)
        return out if native.core.rows(self._id_of, texts, self.oov_id, width, pad_id, out) else None

    def ids(self, tokens: list[Any]) -> list[int]:
        """The id of each token."""
        if not self.oov_buckets:
            return list(map(self._id_of.get, tokens, repeat(self.oov_id)))  # type: ignore[reportReturnType]
        found: list[int | None] = list(map(self._id_of.get, tokens))
        unknown = [i for i, item in enumerate(found) if item is None]
        for i, bucket in zip(unknown, self._buckets([tokens[i] for i in unknown]), strict=True):
            found[i] = self.oov_id + bucket
        return found  # type: ignore[return-value]

    def _buckets(self, tokens: list[Any]) -> list[int]:
        if tokens and isinstance(tokens[0], bytes):
            return items(hash_bucket_fast(strings(tokens, (-1,)), num_buckets=self.oov_buckets))
        return [token % self.oov_buckets for token in tokens]


class _Lookup:
    def __init__(
        self,
        vocabulary: Tensor | Strings,
        first_id: int,
        oov_id: int,
        oov_buckets: int = 0,
        mask_token: bytes | int | None = None,
        mask_id: int = 0,
        dtype: str = "int64",
    ) -> None:
        self.vocabulary = Vocabulary(vocabulary, first_id, oov_id, oov_buckets, mask_token, mask_id)
        self.dtype = torch_dtype(dtype)

    def __call__(self, x: Tensor | Strings) -> Tensor:
        ids = self.vocabulary.array(items(x.reshape(-1)))
        return torch.from_numpy(ids).to(self.dtype).reshape(tuple(x.shape))  # type: ignore[reportUnknownMemberType]


@module(stage="host", infer=_ids_spec)
class StringLookup(_Lookup):
    """The ids of strings in a vocabulary: `[...] -> [...]`; for the arguments see `Vocabulary`. Source: Keras StringLookup."""


@module(stage="host", infer=_ids_spec)
class IntegerLookup(_Lookup):
    """The ids of integers in a vocabulary: `[...] -> [...]`; for the arguments see `Vocabulary`. Source: Keras IntegerLookup."""
