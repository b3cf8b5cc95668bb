"""Texts to rows of ids in one native pass over their bytes: the string ops before a TextVectorization, and it, at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.registry import Strings
from torch_towers.kernels import native
from torch_towers.layers.lookups import Vocabulary
from torch_towers.ops.regex import is_wordwise, literal_rewrite, one_byte_class, replacer
from torch_towers.ops.unicode import lower_utf8, upper_utf8

Change = tuple[str, Mapping[str, Any]]
"""A string op and its attributes. Those of "string_join" are the constants `before` and `after` the text, with the separators."""


class Vectorization(Protocol):
    """What the pass needs of the layer `TextVectorization` behind the ops."""

    vocabulary: Vocabulary
    changes: list[Change]
    length: int
    pad_id: int
    in_one_pass: bool

    def without_core(self, texts: list[bytes]) -> Tensor: ...


_WHITE = b" \t\n\v\f\r"
_KEEP, _SPACE, _DROP, _LEAVE, _UTF8 = 0, 1, 2, 4, 8
"""What becomes of a byte in the native pass: it is kept, ends a word, or is dropped; its text is left to Python, always or where it
is not valid UTF-8."""


def pipeline_of(changes: Sequence[Change], layer: Vectorization) -> Callable[[Strings], Tensor] | None:
    """The function of `changes`, one after another, and then `layer`: `[n]` or `[n, 1]` strings `-> [n, length]`; None where it has
    no faster form than they have one by one.

    Source: tf.raw_ops.StringLower, StringUpper, StringStrip, StaticRegexReplace, StringJoin; Keras TextVectorization.
    """
    if native.core is None or not layer.in_one_pass or layer.vocabulary.words is None:
        return None
    chain = _Chain()
    if not all(chain.add(*change) for change in [*changes, *layer.changes]):
        return None
    table = chain.table.native(words_change=bool(chain.pieces))
    return None if table is None else TextPipeline(chain, table, len(changes), layer)


class _ByteChange(NamedTuple):
    """What becomes of each byte (None: nothing), for which of them a run or a character of several bytes becomes a single one, and
    what a byte asks of its text: nothing (_KEEP), to be valid (_UTF8), or to be left to Python (_LEAVE)."""

    images: Sequence[int | None]
    collapsed: frozenset[int]
    asks: Sequence[int]

    def keeps_white_space(self) -> bool:
        return {self.images[byte] for byte in _WHITE} <= set(_WHITE)


_ALL = bytes(range(256))


def _byte_change(name: str, attrs: Mapping[str, Any]) -> _ByteChange | None:
    """The change of single bytes that an op is, if it is one."""
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
    """Byte changes, one after another."""

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
        """256 images and 256 kinds; None where a run of bytes becomes one that does not end a word."""
        kinds: list[int] = []
        for byte, image in enumerate(self._images):
            white = image is not None and image in _WHITE
            if byte in self._collapsed and image is not None and not white:
                return None
            kind = _DROP if image is None else _SPACE if white else _KEEP
            found = _LEAVE if words_change and image == 0x0B else _KEEP  # RE2's \S finds it
            kinds.append(kind | found | self._asked[byte])
        return bytes(image or 0 for image in self._images) + bytes(kinds)


class _Chain:
    """String ops as a table of bytes, then changes of each piece between white space, with constant texts around them."""

    def __init__(self) -> None:
        self.table = _ByteTable()
        self.pieces: list[Callable[[bytes], bytes]] = []
        self.whole: list[Callable[[bytes], bytes]] = []
        self.before = self.after = b""
        self._apart = (
            False  # white space must stay what it is: the text beside it, or a piece, has its own way from here
        )

    def add(self, name: str, attrs: Mapping[str, Any]) -> bool:
        """Appends an op; False where it does not fit in."""
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
    """What "lower", "upper" or "regex_replace" does to one text."""
    if name == "regex_replace":
        return replacer(attrs["pattern"], attrs["rewrite"], attrs.get("replace_global", True))
    if name == "lower":
        return lower_utf8 if attrs.get("encoding") else bytes.lower
    return upper_utf8 if attrs.get("encoding") else bytes.upper


_Left = tuple[list[int], list[bytes]]
"""The rows that the native pass left, and words that it did not know."""

_MOST, _ROOM, _PASSES = (1 << 16) - 1, 1 << 22, 4
"""The bounds of what is remembered, in words and in bytes, and how often a text is read before Python takes it."""


class TextPipeline:
    """A chain of string ops and a TextVectorization as one pass: `[n]` or `[n, 1]` strings `-> [n, length]`.

    Words whose ids are not simply those of the vocabulary are worked out once, in Python, and remembered. Texts of which the pass is
    not sure (bytes that are not UTF-8, very long words) go the ops' own way.
    """

    def __init__(self, chain: _Chain, table: bytes, ops: int, layer: Vectorization) -> None:
        self._layer, self._table, self._pieces, self._whole = layer, table, chain.pieces, chain.whole[:ops]
        self._width, self._pad = layer.length, layer.pad_id
        self._ids = layer.vocabulary.ids
        self._first, self._last = (self._constant(text) for text in (chain.before, chain.after))
        learns = bool(chain.pieces) or layer.vocabulary.oov_buckets > 0
        self._missing = None if learns else layer.vocabulary.oov_id
        self._words = _memory() if learns else layer.vocabulary.words

    def __call__(self, x: Strings) -> Tensor:
        if x.ndim == 2 and x.shape[1] != 1:
            raise InputError(f"texts have shape {list(x.shape)}, expected one text per row")
        texts = x.ravel()
        out = np.empty((len(texts), self._width or self._longest(texts)), np.int64)
        left = self._read(texts, out)
        if left is not None:
            self._learn_and_read(texts, left, out)
        return torch.from_numpy(out)  # type: ignore[reportUnknownMemberType]

    def _read(self, texts: Strings, out: np.ndarray[Any, np.dtype[np.int64]] | None) -> Any:
        """Into `out`: what is left to do. Where that is None: the length of the longest row, and what is left to do."""
        return native.core.text_ids(
            self._words, self._table, self._first, self._last, self._missing, self._pad, texts, out
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

    def _learn_and_read(self, texts: Strings, left: _Left, out: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """The rows that are left: again, once their words are known, or in Python."""
        rows = np.array(left[0])
        for _ in range(_PASSES):
            if not left[1]:
                break
            self._learn(left[1])
            part = np.empty((len(rows), out.shape[1]), np.int64)
            now = self._read(texts[rows], part)
            out[rows] = part
            if now is None:
                return
            rows, left = rows[now[0]], now
        ids = self._slowly(texts[rows])
        out[rows] = self._pad
        out[rows, : ids.shape[1]] = ids

    def _slowly(self, texts: Strings) -> np.ndarray[Any, Any]:
        """The rows of texts, by the ops one after another."""
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
