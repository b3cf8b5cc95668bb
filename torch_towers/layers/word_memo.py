"""The tokens of words, remembered: a tokenizer matches each distinct word once in a process, not once in a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from torch_towers.formats.byte_strings import strings
from torch_towers.graph.registry import Strings

Array = np.ndarray[Any, Any]

_REMEMBERED = 1 << 23
"""Bytes and tokens: beyond it a memory is replaced by an empty one."""


class Pieces:
    """Tokens as columns: their text, id, and where they start and end in the word."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ids: list[int] = []
        self.starts: list[int] = []
        self.limits: list[int] = []

    def add(self, piece: bytes, number: int, start: int, limit: int) -> None:
        self.pieces.append(piece)
        self.ids.append(number)
        self.starts.append(start)
        self.limits.append(limit)

    def extend(self, other: Pieces) -> None:
        self.pieces += other.pieces
        self.ids += other.ids
        self.starts += other.starts
        self.limits += other.limits


class Found(NamedTuple):
    """The tokens of words: how many each word has `[words]`, and the index of each token `[tokens]` in the columns."""

    lengths: Array
    taken: Array
    pieces: Strings
    ids: Array
    starts: Array
    limits: Array


class WordMemo:
    """`memo(words)`: the tokens of each word; `tokens` computes those of a word that was not met before."""

    def __init__(self, tokens: Callable[[bytes], Pieces]) -> None:
        self._tokens = tokens
        self._memory = _Memory()
        self._lock = threading.Lock()

    def __call__(self, words: Sequence[bytes]) -> Found:
        memory = self._memory  # other threads may replace it
        places = memory.places_of(words)
        if places.size and places.min() < 0:
            with self._lock:
                if memory.size > _REMEMBERED:
                    memory = self._memory = _Memory()
                memory.add(words, self._tokens)
            places = memory.places_of(words)
        first, counts, *columns = memory.columns
        each = counts[places]
        ends = each.cumsum()
        taken = np.arange(int(each.sum())) + np.repeat(first[places] - ends + each, each)
        return Found(each, taken, *columns)


class _Memory:
    """The tokens of all words met so far, concatenated; a word is known by its index."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._counts: list[int] = []
        self._output = Pieces()
        self.size = 0
        self._gather()

    def places_of(self, words: Sequence[bytes]) -> Array:
        """The index of each word, -1 for unknown ones."""
        get = self._places.get
        return np.fromiter([get(word, -1) for word in words], np.int64, len(words))

    def add(self, words: Sequence[bytes], tokens: Callable[[bytes], Pieces]) -> None:
        new: dict[bytes, int] = {}
        for word in words:
            if word in self._places or word in new:
                continue
            found = tokens(word)
            new[word] = len(self._counts)
            self._counts.append(len(found.pieces))
            self._output.extend(found)
            self.size += len(word) + 1 + len(found.pieces)
        self._gather()
        self._places.update(new)  # last: other threads that find a word also find its tokens

    def _gather(self) -> None:
        counts, output = np.array(self._counts, np.int64), self._output
        pieces = strings(output.pieces, (len(output.pieces),))
        numbers = (np.array(column, np.int64) for column in (output.ids, output.starts, output.limits))
        self.columns: tuple[Any, ...] = (counts.cumsum() - counts, counts, pieces, *numbers)
