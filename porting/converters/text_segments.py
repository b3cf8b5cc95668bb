"""TensorFlow Text: trimming segments, n-grams, bytes."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError

Emit = ConvertingEmitter


@converter("TFText>RoundRobinGenerateMasks", outputs=("masks",))
def round_robin_masks(t: Emit, limit: Any, *segments: Any) -> Any:
    splits = segments[len(segments) // 2 :]
    return (list(t.round_robin_masks(t.tensor(limit), *map(t.tensor, splits))),)


@converter("TFText>RoundRobinTrim", outputs=("values", "row_splits"))
def round_robin_trim(t: Emit, limit: Any, *segments: Any) -> Any:
    half = len(segments) // 2
    splits = [t.tensor(part) for part in segments[half:]]
    masks = t.round_robin_masks(t.tensor(limit), *splits)
    kept = [
        t.ragged_keep(t.tensor(values), mask, part)
        for values, mask, part in zip(segments[:half], masks, splits, strict=True)
    ]
    return [values for values, _ in kept], [part for _, part in kept]


@converter("TFText>NgramsStringJoin", outputs=("output_values", "output_row_splits"), ignores=("axis", "RAGGED_RANK"))
def ngrams(t: Emit, values: Any, *splits: Any, width: int, string_separator: bytes) -> Any:
    """TensorFlow supports only the last axis, and joins no tokens at all if `width` is below 1."""
    if width < 1:
        raise PortingError(f"{t.scope!r}: n-grams of {width} tokens, expected 1 or more")
    if not splits:
        return t.ngrams_join_dense(values, width=width, separator=string_separator), []
    joined, *inner = t.ngrams_join(values, *map(t.tensor, splits), width=width, separator=string_separator)
    return joined, inner


@converter("TFText>ByteSplitWithOffsets",
           outputs=("output_bytes", "output_row_splits", "output_start_offsets", "output_end_offsets"))  # fmt: skip
def byte_split(t: Emit, x: Any) -> Any:
    return t.byte_split(x)


@converter("TFText>ByteSplitByOffsets", outputs=("output_values", "output_row_splits"))
def byte_split_by_offsets(t: Emit, x: Any, starts: Any, limits: Any, splits: Any) -> Any:
    return t.byte_split_by_offsets(x, *map(t.tensor, (starts, limits, splits)))


@converter("TFText>Utf8Binarize")
def utf8_binarize(t: Emit, x: Any, *, word_length: int, bits_per_char: int, replacement_char: int) -> Any:
    return t.utf8_binarize(x, characters=word_length, bits=bits_per_char, replacement=replacement_char)
