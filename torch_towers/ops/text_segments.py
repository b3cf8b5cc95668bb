"""TensorFlow Text: trimming segments to a common budget, n-grams, bytes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Number, Spec, Strings, op, returns
from torch_towers.ops.strings import strings
from torch_towers.ops.text import FLAT, codepoint, int64, integers, split_utf8


def _masks_spec(limit: Spec, *splits: Spec) -> list[Spec]:
    return [("bool", (None,)) for _ in splits]


@op(stage="host", infer=_masks_spec)
def round_robin_masks(limit: Number, *splits: Tensor) -> tuple[Tensor, ...]:
    """A mask of the tokens to keep in each segment when `limit` is dealt out round-robin: `k of [n + 1] -> k of
    [tokens]` bool.

    Source: tensorflow_text TFText>RoundRobinGenerateMasks, TFText>RoundRobinTrim.
    """
    bounds = [integers(part) for part in splits]
    masks: list[list[bool]] = [[] for _ in bounds]
    for row in range(len(bounds[0]) - 1):
        sizes = [part[row + 1] - part[row] for part in bounds]
        for mask, size, used in zip(masks, sizes, _dealt(sizes, max(int(limit), 0)), strict=True):
            mask += [True] * used + [False] * (size - used)
    return tuple(torch.tensor(mask, dtype=torch.bool) for mask in masks)


def _dealt(sizes: list[int], limit: int) -> list[int]:
    """The number of tokens that each segment keeps: short segments whole, the others equal shares, the remainder to the
    first ones."""
    used = list(sizes)
    longest_last = sorted(range(len(sizes)), key=sizes.__getitem__)
    for place, index in enumerate(longest_last):
        waiting = len(sizes) - place
        if sizes[index] * waiting > limit:
            for other in longest_last[place:]:
                used[other] = limit // waiting
            limit -= limit // waiting * waiting
            break
        limit -= sizes[index]
    else:
        return used
    for index, size in enumerate(sizes):
        if limit > 0 and used[index] < size:
            used[index] += 1
            limit -= 1
    return used


def _kept_spec(values: Spec, mask: Spec, splits: Spec) -> list[Spec]:
    return [(values[0], (None,)), splits]


@op(stage="host", infer=_kept_spec)
def ragged_keep(values: Tensor | Strings, mask: Tensor, splits: Tensor) -> tuple[Tensor | Strings, Tensor]:
    """The masked values of each row: `[t], [t], [n + 1] -> [kept], [n + 1]`."""
    before = torch.cat([torch.zeros(1, dtype=torch.int64), mask.to(torch.int64).cumsum(0)])
    kept = values[mask] if isinstance(values, Tensor) else values[mask.numpy()]
    return kept, before[splits.to(torch.int64)].to(splits.dtype)


def _ngrams_spec(values: Spec, *splits: Spec, **attrs: Any) -> list[Spec]:
    return [FLAT["string"], *splits]


@op(stage="host", infer=_ngrams_spec)
def ngrams_join(values: Strings, *splits: Tensor, width: int, separator: bytes) -> tuple[Strings | Tensor, ...]:
    """Joins each `width` consecutive tokens of the innermost dimension: `[t], splits -> [grams], splits`.

    Errors: `InputError` for splits that do not match the tokens, where TensorFlow crashes. Source: tensorflow_text
    TFText>NgramsStringJoin.
    """
    tokens: list[bytes] = values.tolist()
    grams: list[bytes] = []
    inner = [0]
    bounds = integers(splits[-1])
    if bounds[:1] != [0] or bounds[-1] != len(tokens) or sorted(bounds) != bounds:
        raise InputError(f"the splits of the tokens must rise from 0 to their number, {len(tokens)}")
    for first, last in itertools.pairwise(bounds):
        grams += [separator.join(tokens[start : start + width]) for start in range(first, last - width + 1)]
        inner.append(len(grams))
    return strings(grams, (len(grams),)), *splits[:-1], int64(inner)


def _dense_spec(values: Spec, **attrs: Any) -> list[Spec]:
    return [("string", None if values[1] is None else (*values[1][:-1], None))]


@op(stage="host", infer=_dense_spec)
def ngrams_join_dense(values: Strings, *, width: int, separator: bytes) -> Strings:
    """Joins each `width` neighbours on the last axis: `[..., t] -> [..., max(t - width + 1, 0)]`."""
    count = max(values.shape[-1] - width + 1, 0)
    rows = values.reshape(-1, values.shape[-1]).tolist() if values.size else []
    grams = [separator.join(row[start : start + width]) for row in rows for start in range(count)]
    return strings(grams, (*values.shape[:-1], count))


@op(stage="host", infer=returns(FLAT["uint8"], FLAT["int64"], FLAT["int32"], FLAT["int32"]))
def byte_split(x: Strings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The bytes of each text: `[n] -> bytes [b], splits [n + 1], starts [b], limits [b]`. Source:
    TFText>ByteSplitWithOffsets."""
    texts: list[bytes] = x.ravel().tolist()
    splits = np.zeros(len(texts) + 1, np.int64)
    np.fromiter(map(len, texts), np.int64, len(texts)).cumsum(out=splits[1:])
    first = np.repeat(splits[:-1], np.diff(splits))
    offsets = torch.from_numpy((np.arange(len(first)) - first).astype(np.int32))  # type: ignore[reportUnknownMemberType]
    data = torch.from_numpy(np.frombuffer(b"".join(texts), np.uint8).copy())  # type: ignore[reportUnknownMemberType]
    return data, torch.from_numpy(splits), offsets, offsets + 1  # type: ignore[reportUnknownMemberType]


@op(stage="host", infer=returns(FLAT["string"], FLAT["int64"]))
def byte_split_by_offsets(x: Strings, starts: Tensor, limits: Tensor, splits: Tensor) -> tuple[Strings, Tensor]:
    """Slices of each text by byte offsets: `[n], [p], [p], [n + 1] -> [p], [n + 1]`. Raises InputError if they are out
    of range.

    Source: tensorflow_text TFText>ByteSplitByOffsets.
    """
    first, last, bounds = integers(starts), integers(limits), integers(splits)
    parts: list[bytes] = []
    rows = [0]
    for text, (begin, end) in zip(x.ravel().tolist(), itertools.pairwise(bounds), strict=True):
        for start, limit in zip(first[begin:end], last[begin:end], strict=True):
            if not 0 <= start <= limit <= len(text):
                raise InputError(f"byte_split: {start} to {limit} is not within the {len(text)} bytes of a text")
            parts.append(text[start:limit])
        rows.append(len(parts))
    return strings(parts, (len(parts),)), int64(rows)


def _binary_spec(x: Spec, *, characters: int, bits: int, replacement: int) -> list[Spec]:
    return [("float32", None if x[1] is None else (*x[1], characters * bits))]


@op(stage="host", infer=_binary_spec)
def utf8_binarize(x: Strings, *, characters: int, bits: int, replacement: int) -> Tensor:
    """The lowest bits of the first code points as 0 and 1: `[n] -> [n, characters * bits]`. Source:
    TFText>Utf8Binarize."""
    rows = np.zeros((x.size, characters, bits), np.float32)
    for row, text in enumerate(x.ravel().tolist()):
        for column, character in enumerate(split_utf8(text)[:characters]):
            code = codepoint(character)
            rows[row, column] = _bits(replacement if code < 0 else code, bits)
    return torch.as_tensor(rows.reshape(*x.shape, characters * bits))


def _bits(code: int, count: int) -> Sequence[int]:
    return [code >> bit & 1 for bit in range(count)]
