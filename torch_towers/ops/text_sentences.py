"""TensorFlow Text: sentence splitting by terminal punctuation."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.formats.unicode_tables import CLOSING, OPENING, TERMINAL
from torch_towers.graph.registry import Strings, op, returns
from torch_towers.ops.text import int64, integers

_VECTOR = ("int64", (None,))
_EMOTICON, _ACRONYM = 0x80, 0x100  # properties of a token
_ENDS, _MANY_ENDS, _CLOSES, _CLOSES_SENTENCE = 1, 2, 4, 8  # properties of a fragment
_MORE_CLOSING = frozenset(["''", "]", "`", "\uff02", "\uff07"])


def _among(ranges: list[tuple[int, int]]) -> Callable[[str], bool]:
    """Tests whether a token is one character of `ranges`."""
    starts = [first for first, _ in ranges]

    def test(token: str) -> bool:
        if len(token) != 1:
            return False
        index = bisect_right(starts, ord(token)) - 1
        return index >= 0 and ord(token) <= ranges[index][1]

    return test


_is_terminal, _is_closing, _is_opening = _among(TERMINAL), _among(CLOSING), _among(OPENING)


def _is_ellipsis(token: str) -> bool:
    return token in ("...", "\u2026")


@op(stage="host", infer=returns(_VECTOR, _VECTOR, _VECTOR, _VECTOR, _VECTOR))
def sentence_fragments(
    row_lengths: Tensor, words: Strings, properties: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Boundaries of sentences: `lengths [d], words [t], properties [t] -> starts, limits, properties, terminators [s],
    counts [d]`.

    Starts and limits are token indices in a document; the terminator is the token that ends the sentence, or -1.
    Source: tensorflow_text SentenceFragments.
    """
    lengths, flags = integers(row_lengths), integers(properties)
    tokens = [word.decode("utf-8", "replace") for word in words.tolist()]
    if not sum(lengths) == len(tokens) == len(flags):
        raise InputError(
            f"sentence_fragments: {sum(lengths)} tokens in rows, {len(tokens)} words and {len(flags)} properties, expected as many"
        )
    if "" in tokens:
        raise InputError("sentence_fragments: a word is empty, which TensorFlow refuses")
    found: list[tuple[int, int, int, int]] = []
    counts: list[int] = []
    start = 0
    for length in lengths:
        rows = _Document(tokens[start : start + length], flags[start : start + length]).fragments()
        found += rows
        counts.append(len(rows))
        start += length
    columns = [int64([row[index] for row in found]) for index in range(4)]
    return columns[0], columns[1], columns[2], columns[3], int64(counts)


class _Boundary:
    """State of a sentence's end: terminal punctuation, then closing brackets or quotes."""

    __slots__ = ("closing", "limit", "state", "terminal")

    def __init__(self) -> None:
        self.state = 0  # 0: in the sentence, 1: in terminal punctuation, 2: in closing punctuation
        self.terminal = self.closing = self.limit = -1

    def copy(self) -> _Boundary:
        other = _Boundary()
        other.state, other.terminal, other.closing, other.limit = self.state, self.terminal, self.closing, self.limit
        return other


class _Document:
    def __init__(self, tokens: Sequence[str], flags: Sequence[int]) -> None:
        self.tokens, self.flags = tokens, flags
        self.opened_sentence = False  # whether the last opening parenthesis starts a sentence

    def fragments(self) -> list[tuple[int, int, int, int]]:
        found: list[tuple[int, int, int, int]] = []
        start = 0
        while start < len(self.tokens):
            end = self._boundary(start)
            for index in reversed(range(start, end.limit)):
                if _is_opening(self.tokens[index]):
                    self.opened_sentence = index == start
                    break
            found.append(self._fragment(start, end))
            start = end.limit
        return found

    def _boundary(self, start: int) -> _Boundary:
        current, before = _Boundary(), _Boundary()
        index = start
        while index < len(self.tokens):
            if current.terminal >= 0 and index > start:
                if not self._follows_space(index):
                    break
                before = current.copy()
            if self._advance(current, index):
                index += 1
            elif before.terminal >= 0:
                return before
            else:
                current = _Boundary()  # process this token again: the punctuation before it ended nothing
        return current

    def _follows_space(self, index: int) -> bool:
        token = self.tokens[index]
        return bool(self.flags[index] & _EMOTICON) or _is_ellipsis(token) or _is_terminal(token) or _is_closing(token)

    def _advance(self, end: _Boundary, index: int) -> bool:
        token, emoticon = self.tokens[index], bool(self.flags[index] & _EMOTICON)
        ends = _is_terminal(token) or _is_ellipsis(token) or emoticon
        closes = _is_closing(token) or token in _MORE_CLOSING
        if end.state == 0 and (ends or (self.flags[index] & _ACRONYM and token.endswith("."))):
            end.terminal, end.state = index, 1
        elif end.state == 1 and not ends:
            if not closes:
                return False
            end.closing, end.state = index, 2
        elif end.state == 2 and not (closes or _is_ellipsis(token) or emoticon):
            return False
        end.limit = index + 1
        if end.state == 1:
            end.closing = end.limit
        return True

    def _fragment(self, start: int, end: _Boundary) -> tuple[int, int, int, int]:
        if end.terminal < 0:
            return start, end.limit, 0, -1
        bits = _ENDS
        after = range(end.terminal + 1, end.closing)
        if any(
            _is_terminal(self.tokens[i]) and not _is_ellipsis(self.tokens[i]) and not self.flags[i] & _EMOTICON
            for i in after
        ):
            bits |= _MANY_ENDS
        if any(_is_closing(self.tokens[index]) for index in range(end.closing, end.limit)):
            bits |= _CLOSES | (_CLOSES_SENTENCE if self.opened_sentence else 0)
        return start, end.limit, bits, self._first_mark(end)

    def _first_mark(self, end: _Boundary) -> int:
        """The first mark after the last ellipsis or emoticon; if that one is last, the first of all."""
        for index in range(end.closing, end.terminal, -1):
            if _is_ellipsis(self.tokens[index - 1]) or self.flags[index - 1] & _EMOTICON:
                return end.terminal if index == end.closing else index
        return end.terminal
