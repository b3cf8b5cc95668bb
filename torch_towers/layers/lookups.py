"""Lookups: tokens to ids, with handling of unknown tokens and the mask token. Each is one pass over its elements."""

from __future__ import annotations

from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import CheckpointError
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Spec, Strings, module
from torch_towers.kernels import native
from torch_towers.ops.hashing import hash_bucket_fast


def _ids_spec(x: Spec, *, dtype: str = "int64", **args: Any) -> list[Spec]:
    return [(dtype, x[1])]


def items(x: Tensor | Strings) -> list[Any]:
    """The elements of a vector as Python objects."""
    values: Any = x
    return values.tolist()


class Vocabulary:
    """The ids of tokens: token i of `vocabulary` is `first_id + i`, any other token `oov_id`.

    With `oov_buckets` an unknown token is `oov_id` plus its hash (FarmHash for strings, the value itself for integers)
    modulo that number. `mask_token` is always `mask_id`, in the vocabulary or not.
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
        ids = (first_id, first_id + len(tokens), oov_id, oov_id + oov_buckets, mask_id)
        if oov_buckets < 0 or not all(-(1 << 63) <= number < 1 << 63 for number in ids):
            raise CheckpointError(
                f"a vocabulary has {oov_buckets} buckets and ids from {first_id}, which int64 cannot hold"
            )
        self.oov_id, self.oov_buckets = oov_id, oov_buckets
        self._tokens, self._first_id, self._mask, self._mask_id = tokens, first_id, mask_token, mask_id
        self.size = len(tokens)
        self._integers = isinstance(vocabulary, Tensor)
        self.words = _native_words(vocabulary, first_id, mask_token, mask_id)
        if self.words is None:
            assert self._id_of is not None  # built now, since it detects duplicate tokens

    @cached_property
    def _id_of(self) -> dict[Any, int]:
        """The vocabulary as a dict, for Python; the native core may never need it."""
        tokens, first = self._tokens, self._first_id
        id_of: dict[Any, int] = dict(zip(tokens, range(first, first + len(tokens)), strict=True))
        if len(id_of) != len(tokens):
            raise CheckpointError("a vocabulary holds a token twice")
        if self._mask is not None:
            id_of[self._mask] = self._mask_id
        return id_of

    def array(self, x: Tensor | Strings) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The id of each token: `[n] -> [n]` int64."""
        if native.core is None or self.words is None or isinstance(x, Tensor) != self._integers:
            return self._array_of_list(items(x))
        if isinstance(x, Tensor) and x.dtype not in _INTEGERS:
            return self._array_of_list(items(x))
        keys: Any = _numbers(x) if isinstance(x, Tensor) else x
        find = native.core.find_integers if self._integers else native.core.find
        out = np.empty(len(keys), np.int64)
        left = find(self.words, keys, None if self.oov_buckets else self.oov_id, out)
        if left is not None:
            out[left] = self._unknown(keys[left])
        return out

    def _unknown(self, keys: Any) -> Any:
        """The ids of out-of-vocabulary strings or int64s."""
        if not self.oov_buckets:
            return self.oov_id
        if self._integers:
            return self.oov_id + keys % self.oov_buckets
        return self.oov_id + hash_bucket_fast(keys, num_buckets=self.oov_buckets).numpy()

    def _array_of_list(self, tokens: list[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
        if native.core is not None and not self.oov_buckets:
            out = np.empty(len(tokens), np.int64)
            if native.core.lookup(self._id_of, tokens, self.oov_id, out):
                return out
        return np.array(self.ids(tokens), np.int64)

    def ids(self, tokens: list[Any]) -> list[int]:
        """The id of each token."""
        if not self.oov_buckets:
            return list(map(self._id_of.get, tokens, repeat(self.oov_id)))  # type: ignore[reportReturnType]
        found: list[int | None] = list(map(self._id_of.get, tokens))
        unknown = [i for i, item in enumerate(found) if item is None]
        for i, unknown_id in zip(unknown, self._unknown_ids([tokens[i] for i in unknown]), strict=True):
            found[i] = unknown_id
        return found  # type: ignore[return-value]

    def _unknown_ids(self, tokens: list[Any]) -> list[int]:
        if not self.oov_buckets:
            return [self.oov_id] * len(tokens)
        if tokens and isinstance(tokens[0], bytes):
            buckets = items(hash_bucket_fast(strings(tokens, (-1,)), num_buckets=self.oov_buckets))
        else:
            buckets = [token % self.oov_buckets for token in tokens]
        return [self.oov_id + bucket for bucket in buckets]


_INTEGERS = (torch.int64, torch.int32)


def _numbers(x: Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
    return x.to(torch.int64).contiguous().numpy()


def _native_words(vocabulary: Tensor | Strings, first_id: int, mask_token: bytes | int | None, mask_id: int) -> Any:
    """The vocabulary as a native hash table, integers as their eight bytes; None without native code or with duplicate
    tokens."""
    if native.core is None:
        return None
    try:
        if isinstance(mask_token, int):
            mask_token = np.int64(mask_token).tobytes()
        if isinstance(vocabulary, Tensor):
            if vocabulary.dtype not in _INTEGERS:
                return None
            raw = _numbers(vocabulary).tobytes()
            tokens = strings([raw[i : i + 8] for i in range(0, len(raw), 8)], (-1,))
        else:
            tokens = np.ascontiguousarray(vocabulary)
        room = sum(map(len, tokens.tolist())) + 24 * (len(tokens) + 1) + len(mask_token or b"")
        words = native.core.Words(len(tokens) + 1, room)
        if words.extend(tokens, first_id) and (mask_token is None or words.add(mask_token, [mask_id])):
            return words
    except (TypeError, OverflowError):  # a token without a length, a mask beyond 64 bits
        pass
    return None


class _Lookup:
    def __init__(
        self,
        vocabulary: Tensor | Strings,
        first_id: int,
        oov_id: int,
        oov_buckets: int = 0,
        mask_token: bytes | int | None = None,
        mask_id: int = 0,
        dtype: Dtype = "int64",
    ) -> None:
        self.vocabulary = Vocabulary(vocabulary, first_id, oov_id, oov_buckets, mask_token, mask_id)
        self.dtype = torch_dtype(dtype)

    def __call__(self, x: Tensor | Strings) -> Tensor:
        flat = x if x.ndim == 1 else x.reshape(-1)
        ids: Tensor = torch.from_numpy(self.vocabulary.array(flat))  # type: ignore[reportUnknownMemberType]
        if self.dtype != torch.int64:
            ids = ids.to(self.dtype)
        return ids if flat is x else ids.reshape(tuple(x.shape))


@module(stage="host", infer=_ids_spec)
class StringLookup(_Lookup):
    """The ids of strings in a vocabulary: `[...] -> [...]`; arguments as in `Vocabulary`. Source: Keras
    StringLookup."""


@module(stage="host", infer=_ids_spec)
class IntegerLookup(_Lookup):
    """The ids of integers in a vocabulary: `[...] -> [...]`; arguments as in `Vocabulary`. Source: Keras
    IntegerLookup."""
