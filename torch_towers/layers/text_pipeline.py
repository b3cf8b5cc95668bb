"""Texts to rows of ids in one native pass over their bytes: the string ops before a TextVectorization, and it, at once.

`pipeline_of` is the one place that knows how a chain of string ops runs over bytes. The chain comes from two places, since it has two
owners: what Keras's layer does (`porting/rewrites/text.py` recognises it, and it becomes arguments of the layer in the checkpoint), and
the ops that a model runs before the layer, which stay nodes (`program/fusion.py` finds them). Three caches serve three lifetimes: a
compiled pattern (`ops/regex.py`) is the process's, a vocabulary the layer's, and `Words`, the ids of words after the chain, the pass's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Strings
from torch_towers.kernels import native
from torch_towers.layers.lookups import Vocabulary
from torch_towers.ops.regex import is_wordwise, literal_rewrite, one_byte_class, replacer
from torch_towers.ops.unicode import lower_utf8, upper_utf8

Change = tuple[str, Mapping[str, Any]]
"""A string op and its attributes. For "string_join" these are the constants `before` and `after` the text, including
separators."""


class Vectorization(Protocol):
    """What the pass needs of the layer `TextVectorization` that follows the ops."""

    vocabulary: Vocabulary
    changes: list[Change]
    separator: bytes
    ngrams: tuple[int, ...]
    ngram_separator: bytes
    output_mode: str
    length: int
    pad_id: int
    size: int
    dtype: Dtype

    def without_core(self, texts: list[bytes]) -> Tensor: ...


_COUNTS: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.int64: np.int64}
_WIDTHS, _WIDEST = 16, 1 << 20  # as in native/core/text.c
_WHITE = b" \t\n\v\f\r"
_KEEP, _SPACE, _DROP, _LEAVE, _UTF8 = 0, 1, 2, 4, 8
"""The action for a byte in the native pass: keep it, end a word, or drop it; fall back to Python for its text, always
or if it is invalid UTF-8."""


def pipeline_of(changes: Sequence[Change], layer: Vectorization) -> Callable[[Strings], Tensor] | None:
    """Fuses the chain `changes` and `layer`: `[n]` or `[n, 1]` strings `-> [n, length]`, or `[n, size]` counts; None if
    that is no faster than running them one by one.

    Source: tf.raw_ops.StringLower, StringUpper, StringStrip, StaticRegexReplace, StringJoin; Keras TextVectorization.
    """
    if native.core is None or layer.separator or layer.vocabulary.words is None:
        return None
    if layer.output_mode != "int" and torch_dtype(layer.dtype) not in _COUNTS:
        return None
    chain = _Chain()
    if not all(chain.add(*change) for change in [*changes, *layer.changes]):
        return None
    if layer.ngrams and (chain.pieces or chain.before or chain.after or not _are_looked_up(layer)):
        return None
    table = chain.table.native(words_change=bool(chain.pieces))
    return None if table is None else TextPipeline(chain, table, len(changes), layer)


def _are_looked_up(layer: Vectorization) -> bool:
    """Whether the n-grams are few widths of moderate size, whose ids are plain vocabulary lookups."""
    return (
        layer.vocabulary.oov_buckets == 0
        and len(layer.ngrams) <= _WIDTHS
        and 0 < min(layer.ngrams) <= max(layer.ngrams) <= _WIDEST
    )


class _ByteChange(NamedTuple):
    """A byte-wise change: the image of each byte (None: deleted), the bytes for which a run or a multi-byte character
    collapses to one, and the requirement of each byte on its text: none (_KEEP), valid UTF-8 (_UTF8), or the fallback
    (_LEAVE)."""

    images: Sequence[int | None]
    collapsed: frozenset[int]
    asks: Sequence[int]

    def keeps_white_space(self) -> bool:
        return {self.images[byte] for byte in _WHITE} <= set(_WHITE)


_ALL = bytes(range(256))


def _byte_change(name: str, attrs: Mapping[str, Any]) -> _ByteChange | None:
    """The byte-wise change that an op is equivalent to, if any."""
    if name in ("lower", "upper"):
        images = _ALL.lower() if name == "lower" else _ALL.upper()
        by_character = _LEAVE if attrs.get("encoding") else _KEEP
        return _ByteChange(
            images, frozenset(), [by_character, *[_KEEP] * 127, *[by_character] * 128]
        )  # NUL ends a text
    if name != "regex_replace" or not attrs.get("replace_global", True):
        return None
    found, literal = one_byte_class(attrs["pattern"]), literal_rewrite(attrs["rewrite"])
    if found is None or literal is None or len(literal) > 1 or not literal.isascii():
        return None
    changed = {*found.ascii, *(range(128, 256) if found.beyond else ())}
    image = literal[0] if literal else None
    images = [image if byte in changed else byte for byte in range(256)]
    collapsed = {*(changed if found.runs else ()), *(range(128, 256) if found.beyond else ())}
    if collapsed and literal.strip():
        return None
    return _ByteChange(images, frozenset(collapsed), [_KEEP] * 128 + [_UTF8 if found.beyond else _KEEP] * 128)


class _ByteTable:
    """The composition of byte-wise changes."""

    def __init__(self) -> None:
        self._images: list[int | None] = list(range(256))
        self._asked = [_KEEP] * 256
        self._collapsed: set[int] = set()

    def add(self, change: _ByteChange) -> None:
        for byte, image in enumerate(self._images):
            if image is None:
                continue
            self._asked[byte] |= change.asks[image]
            if image in change.collapsed:
                self._collapsed.add(byte)
            self._images[byte] = change.images[image]

    def native(self, *, words_change: bool) -> bytes | None:
        """256 images and 256 kinds; None if a run of bytes becomes one that does not end a word."""
        kinds: list[int] = []
        for byte, image in enumerate(self._images):
            white = image is not None and image in _WHITE
            if byte in self._collapsed and image is not None and not white:
                return None
            kind = _DROP if image is None else _SPACE if white else _KEEP
            found = _LEAVE if words_change and image == 0x0B else _KEEP  # RE2's \S matches it
            kinds.append(kind | found | self._asked[byte])
        return bytes(image or 0 for image in self._images) + bytes(kinds)


class _Chain:
    """String ops as a table of bytes, then changes of each piece between white space, with constant texts around them.

    Of `lower`, `regex_replace("[!?]", "")` and `string_join("q: ", text)` the first two are one table: it maps "H" to "h" and drops "!".
    The third is `before`, whose words have ids of their own that never change. So "Hi there!" is read once, byte by byte, as the words
    "hi" and "there", and its row is the ids of "q:", "hi" and "there".

    An op that looks at whole words, such as `regex_replace("\\w*ing", "X")`, fits in no table: it is a function in `pieces`. The
    native pass hands over each word that it has not met, Python runs the functions on it, and its ids are remembered.
    """

    def __init__(self) -> None:
        self.table = _ByteTable()
        self.pieces: list[Callable[[bytes], bytes]] = []
        self.whole: list[Callable[[bytes], bytes]] = []
        self.before = self.after = b""
        self._apart = False  # later ops must not change white space: constant texts and words are processed separately from here on

    def add(self, name: str, attrs: Mapping[str, Any]) -> bool:
        """Appends an op; False if it cannot be fused."""
        if name == "string_join":
            return self._join(attrs["before"], attrs["after"])
        if name == "strip":
            self._apart = True
            self.whole.append(bytes.strip)
            return True
        bytewise = _byte_change(name, attrs)
        if bytewise is None:
            if name != "regex_replace" or not attrs.get("replace_global", True) or not is_wordwise(attrs["pattern"]):
                return False
        elif (self._apart and not bytewise.keeps_white_space()) or (
            _LEAVE in bytewise.asks
            and (self.pieces or _LEAVE in map(bytewise.asks.__getitem__, self.before + self.after))
        ):
            return False
        function = function_of(name, attrs)
        self.whole.append(function)
        self.before, self.after = function(self.before), function(self.after)
        if bytewise is not None and not self.pieces:
            self.table.add(bytewise)
        else:
            self.pieces.append(function)
            self._apart = True
        return True

    def _join(self, before: bytes, after: bytes) -> bool:
        if (before and before[-1] not in _WHITE) or (after and after[0] not in _WHITE):
            return False
        self.before, self.after = before + self.before, self.after + after
        self.whole.append(lambda text: before + text + after)
        self._apart = True
        return True


def function_of(name: str, attrs: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    """The function of "lower", "upper" or "regex_replace" on one text."""
    if name == "regex_replace":
        return replacer(attrs["pattern"], attrs["rewrite"], attrs.get("replace_global", True))
    if name == "lower":
        return (lambda text: lower_utf8([text])[0]) if attrs.get("encoding") else bytes.lower
    return (lambda text: upper_utf8([text])[0]) if attrs.get("encoding") else bytes.upper


_Left = tuple[list[int], list[bytes]]
"""The rows that the native pass skipped, and words that it did not know."""

_MOST, _ROOM, _PASSES = (1 << 16) - 1, 1 << 22, 4
"""Limits of the cache, in words and bytes, and the number of passes over a text before the fallback to Python."""


class TextPipeline:
    """A chain of string ops and a TextVectorization as one pass: `[n]` or `[n, 1]` strings `-> [n, length]`, or `[n, size]` counts.

    Words whose ids are not plain vocabulary lookups are computed once in Python and memoized. Texts that the pass
    cannot handle (invalid UTF-8, very long words) run through the ops themselves.
    """

    def __init__(self, chain: _Chain, table: bytes, ops: int, layer: Vectorization) -> None:
        self._layer, self._table, self._pieces, self._whole = layer, table, chain.pieces, chain.whole[:ops]
        self._width, self._pad = layer.length, layer.pad_id
        self._counts = None if layer.output_mode == "int" else _COUNTS[torch_dtype(layer.dtype)]
        self._size = layer.size
        tally = 0 if self._counts is None else np.dtype(self._counts).itemsize
        self._style = (layer.ngrams, layer.ngram_separator, tally, layer.output_mode == "multi_hot")
        self._ids = layer.vocabulary.ids
        self._first, self._last = (self._constant(text) for text in (chain.before, chain.after))
        learns = bool(chain.pieces) or layer.vocabulary.oov_buckets > 0
        self._missing = None if learns else layer.vocabulary.oov_id
        self._words = _memory() if learns else layer.vocabulary.words

    def __call__(self, x: Strings) -> Tensor:
        if x.ndim == 2 and x.shape[1] != 1:
            raise InputError(f"texts have shape {list(x.shape)}, expected one text per row")
        texts = x.ravel()
        out = self._room(len(texts), self._width or (0 if self._counts else self._longest(texts)))
        left = self._read(texts, out)
        if left is not None:
            self._learn_and_read(texts, left, out)
        return torch.from_numpy(out)  # type: ignore[reportUnknownMemberType]

    def _room(self, rows: int, width: int) -> np.ndarray[Any, Any]:
        """What the pass fills: rows of ids, or zeros in which it counts them."""
        return np.empty((rows, width), np.int64) if self._counts is None else np.zeros((rows, self._size), self._counts)

    def _read(self, texts: Strings, out: np.ndarray[Any, Any] | None) -> Any:
        """Fills `out` and returns the remaining work; if `out` is None, returns the longest row's length and the
        remaining work."""
        return native.core.text_ids(
            self._words, self._table, self._first, self._last, self._missing, self._pad, texts, out, *self._style
        )

    def _longest(self, texts: Strings) -> int:
        """The number of ids in the longest row."""
        longest = 0
        for _ in range(_PASSES):
            found, left = self._read(texts, None)
            longest = max(longest, found)
            if left is None:
                return longest
            texts = texts[left[0]]
            if not left[1]:
                break
            self._learn(left[1])
        return max(longest, self._slowly(texts).shape[1])

    def _learn_and_read(self, texts: Strings, left: _Left, out: np.ndarray[Any, Any]) -> None:
        """Processes the remaining rows: again once their words are known, or in Python."""
        rows = np.array(left[0])
        for _ in range(_PASSES):
            if not left[1]:
                break
            self._learn(left[1])
            part = self._room(len(rows), out.shape[1])
            now = self._read(texts[rows], part)
            out[rows] = part
            if now is None:
                return
            rows, left = rows[now[0]], now
        ids = self._slowly(texts[rows])
        out[rows] = 0 if self._counts else self._pad
        out[rows, : ids.shape[1]] = ids

    def _slowly(self, texts: Strings) -> np.ndarray[Any, Any]:
        """The rows of texts, op by op."""
        slow: list[bytes] = texts.tolist()
        for change in self._whole:
            slow = list(map(change, slow))
        return self._layer.without_core(slow).numpy()

    def _learn(self, unknown: list[bytes]) -> None:
        for word in dict.fromkeys(unknown):
            ids = self._ids_of(word)
            if not self._words.add(word, ids):
                self._words = _memory()  # a new one: other threads may be reading the full one
                self._words.add(word, ids)

    def _ids_of(self, word: bytes) -> list[int]:
        for change in self._pieces:
            word = change(word)
        return self._ids(word.split())

    def _constant(self, text: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array(self._ids(text.split()), np.int64)


def _memory() -> Any:
    return native.core.Words(_MOST, _ROOM)
