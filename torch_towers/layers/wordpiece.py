"""WordPiece: greedy longest-match tokenization of words."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import CheckpointError
from torch_towers.graph.registry import Strings, module
from torch_towers.layers.word_memo import Pieces, WordMemo
from torch_towers.ops.text import TOKENS, integers, split_utf8

Piece = tuple[bytes, int, int]


@module(stage="host", infer=TOKENS)
class WordpieceTokenizer:
    """`tokenizer(words)`, `[n] -> pieces [t], row partition, starts [t], limits [t]`: the longest matches from left to
    right.

    A piece within a word starts with `suffix_indicator`. A word with an unmatched part becomes one unknown token, or
    with `split_unknown_characters` only that character does. `values` are the ids of the `keys`; -1 means unknown.
    `row_splits`: the partition is `[n + 1]` splits, else `[n]` lengths. Source: tensorflow_text
    WordpieceTokenizeWithOffsets.
    """

    def __init__(self, keys: Strings, values: Tensor, *, suffix_indicator: bytes, max_bytes_per_word: int, max_chars_per_token: int,
                 unknown_token: bytes | None, split_unknown_characters: bool, row_splits: bool) -> None:  # fmt: skip
        if isinstance(keys, Tensor) or keys.ndim != 1 or tuple(values.shape) != keys.shape:
            raise CheckpointError(
                f"WordPiece vocabulary: {list(keys.shape)} keys and {list(values.shape)} ids, expected as many ids as keys"
            )
        table = dict(zip(keys.tolist(), integers(values), strict=True))
        self._vocabulary = {key for key, value in table.items() if value != -1}
        self._longest_key = max(map(len, self._vocabulary), default=0)
        self._suffix = suffix_indicator
        self._max_bytes = max_bytes_per_word
        self._max_characters = max_chars_per_token
        self._unknown = unknown_token
        self._split_unknown = split_unknown_characters
        self._row_splits = row_splits
        self._memo = WordMemo(self._tokens)

    def __call__(self, words: Strings) -> tuple[Strings, Tensor, Tensor, Tensor]:
        found = self._memo(words.ravel().tolist())
        partition = np.concatenate([[0], found.lengths.cumsum()]) if self._row_splits else found.lengths
        columns = (partition, found.starts[found.taken], found.limits[found.taken])
        return found.pieces[found.taken], *map(torch.from_numpy, columns)  # type: ignore[reportUnknownMemberType,return-value]

    def _tokens(self, word: bytes) -> Pieces:
        found = Pieces()
        for piece, start, limit in self._word(word):
            found.add(piece, 0, start, limit)
        return found

    def _word(self, word: bytes) -> list[Piece]:
        if len(word) > self._max_bytes:
            return [(word, 0, len(word)) if self._unknown is None else (self._unknown, 0, len(self._unknown))]
        pieces: list[Piece] = []
        start = 0
        limits = list(accumulate(map(len, split_utf8(word))))
        while start < len(word):
            piece = self._longest(word, start, limits)
            if piece is None:
                return [(word if self._unknown is None else self._unknown, 0, len(word))]
            pieces.append(piece)
            start = piece[2]
        return pieces

    def _longest(self, word: bytes, start: int, limits: list[int]) -> Piece | None:
        """The longest piece that starts at `start`; `limits` are the ends of the word's characters."""
        prefix = self._suffix if start else b""
        first = bisect_right(limits, start)
        longest = start + self._longest_key - len(prefix)
        last = min(len(limits), bisect_right(limits, longest))
        if self._max_characters > 0:
            last = min(last, first + self._max_characters)
        for limit in reversed(limits[first:last]):
            piece = prefix + word[start:limit]
            if piece in self._vocabulary:
                return piece, start, limit
        if self._split_unknown:
            limit = limits[first]
            return prefix + (word[start:limit] if self._unknown is None else self._unknown), start, limit
        return None
