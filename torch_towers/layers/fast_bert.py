"""TensorFlow Text's fast BERT normalizer and WordPiece tokenizer; their models are FlatBuffers with a trie."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import CheckpointError, InputError
from torch_towers.formats.byte_strings import strings
from torch_towers.formats.flatbuffer import Table, Trie, root
from torch_towers.formats.normalization import WHITE_SPACE
from torch_towers.formats.unicode_tables import BREAKS
from torch_towers.graph.registry import Strings, module, returns
from torch_towers.layers.word_memo import Pieces, WordMemo
from torch_towers.ops.text import codepoint, int64, integers, split_utf8

_STARTS = [first for first, _ in BREAKS]
_ROOT = 0
_NO_NODE = 0xFFFFFFFF
_SPACE = 0x20


@module(stage="host", infer=returns(("string", (None,)), ("int64", (None,)), ("int64", (None,))))
class FastBertNormalizer:
    """`normalizer(texts)`, `[n] -> texts [n], offsets [o], splits [n + 1]`: maps each character independently.

    `offsets`, on request, map each byte of a result (and its end) to its source. `model` is the serialized
    FastBertNormalizerModel, `[m]` uint8. Source: tensorflow_text FastBertNormalize.
    """

    def __init__(self, model: Tensor, *, get_offsets: bool = False) -> None:
        config = root(model.numpy().tobytes(), "FastBertNormalizer")
        self._trie = Trie(_units(config, 1))
        self._zero = config.integer(2)
        self._pool = config.string(3)
        self._get_offsets = get_offsets
        self._mapped: dict[bytes, bytes | None] = {}
        self._images = _Images(self._character)

    def __call__(self, texts: Strings) -> tuple[Strings, Tensor, Tensor]:
        results: list[bytes] = []
        offsets: list[int] = []
        splits = [0]
        if not self._get_offsets:
            results = [self._whole(text) for text in texts.ravel().tolist()]
            return strings(results, (len(results),)), int64(offsets), int64([0] * (len(results) + 1))
        for text in texts.ravel().tolist():
            characters = split_utf8(text)
            mapped = [self._character(character) for character in characters]
            results.append(b"".join(old if new is None else new for old, new in zip(characters, mapped, strict=True)))
            position = 0
            for character, result in zip(characters, mapped, strict=True):
                if result is None:
                    offsets += range(position, position + len(character))
                else:
                    offsets += [position] * len(result)
                position += len(character)
            offsets.append(position)
            splits.append(len(offsets))
        return strings(results, (len(results),)), int64(offsets), int64(splits)

    def _whole(self, text: bytes) -> bytes:
        """Normalizes without offsets: a text of ASCII, or of UTF-8, at once; else character by character."""
        if self._ascii is not None and text.isascii():
            return text.translate(*self._ascii)
        try:
            return text.decode().translate(self._images).encode()
        except UnicodeDecodeError:  # the text, or an image of one of its characters, is not UTF-8
            return self._by_character(text)

    def _by_character(self, text: bytes) -> bytes:
        characters = split_utf8(text)
        mapped = map(self._character, characters)
        return b"".join([old if new is None else new for old, new in zip(characters, mapped, strict=True)])

    @cached_property
    def _ascii(self) -> tuple[bytes, bytes] | None:
        """The images of the ASCII characters, and the deleted ones; None if one maps to several characters."""
        table, gone = bytearray(range(256)), bytearray()
        for code in range(128):
            new = self._character(bytes([code]))
            if new is None:
                continue
            if len(new) > 1:
                return None
            if new:
                table[code] = new[0]
            else:
                gone.append(code)
        return bytes(table), bytes(gone)

    def _character(self, character: bytes) -> bytes | None:
        """The image of a character; None if it is unchanged."""
        if character not in self._mapped:
            self._mapped[character] = self._look_up(character)
        return self._mapped[character]

    def _look_up(self, character: bytes) -> bytes | None:
        """The trie's value: bit 30 marks a mapping, the bits below are its offset in the pool, the last six its
        length."""
        if character == b"\0":
            value = self._zero
        else:
            node = self._trie.step(_ROOT, character)
            value = self._trie.value(node) if node >= 0 else 0
        if value < 0 or not value & 0x40000000:
            return None
        length, start = value & 0x3F, (value & 0x3FFFFFC0) >> 6
        return self._pool[start : start + length] if start + length <= len(self._pool) else b""


class _Images(dict[int, int | str]):
    """The images of code points, for `str.translate`; looked up when first met. `UnicodeDecodeError` for one that is not UTF-8."""

    def __init__(self, image: Callable[[bytes], bytes | None]) -> None:
        super().__init__()
        self._image = image

    def __missing__(self, code: int) -> int | str:
        new = self._image(chr(code).encode())
        found = self[code] = code if new is None else new.decode()
        return found


class _Output(Pieces):
    """The tokens found so far. The first `kept` belong to finished words, the rest to the current word."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 0

    def keep(self) -> None:
        self.kept = len(self.ids)

    def unknown(self, piece: bytes, number: int, start: int, limit: int) -> None:
        """Replaces the current word by one unknown token."""
        for column in (self.pieces, self.ids, self.starts, self.limits):
            del column[self.kept :]
        self.add(piece, number, start, limit)
        self.keep()


class _Word:
    """A word being matched: its start in the text, how much of it is tokenized, the current trie node."""

    __slots__ = ("done", "node", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.done = 0
        self.node = _ROOT


_SPECS = (("string", (None,)), ("int64", (None,)), ("int64", (None,)), ("int64", (None,)), ("int64", (None,)))


@module(stage="host", infer=returns(*_SPECS))
class FastWordpieceTokenizer:
    """`tokenizer(texts)`, `[n] -> pieces [t], ids [t], splits [n + 1], starts [t], limits [t]`: WordPiece in one pass
    over a trie.

    When a match fails, the node's failure link gives the finished pieces and the node to continue at. `model` is the
    serialized FastWordpieceTokenizerConfig, `[m]` uint8. Source: tensorflow_text FastWordpieceTokenizeWithOffsets.
    """

    def __init__(self, model: Tensor) -> None:
        config = root(model.numpy().tobytes(), "FastWordpiece")
        self._trie = Trie(_units(config, 0))
        failures = config.vector(1, "<u8")  # (link, offset of the pops)
        self._links: list[int] = (failures & 0xFFFFFFFF).tolist()
        self._pops: list[int] = (failures >> 32).tolist()
        self._pool: list[int] = config.vector(2, "<i4").tolist()
        self._suffix_root = config.integer(3, form="<I")
        self._max_bytes = config.integer(4)
        self._suffix = config.string(5)
        self._unknown = config.string(6)
        self._unknown_id = config.integer(7)
        self._suffix_alone: list[int] = config.vector(8, "<i4").tolist()
        self._break_root = config.integer(9, form="<I")
        self._whole_texts = config.boolean(10)
        self._kinds: dict[bytes, tuple[bool, bool]] = {}
        self._steps = 0
        ends_words = self._suffix_root != _ROOT and self._kind(b" ") == (True, False) and not self._trie.has(_SPACE)
        self._parts = self._whole_texts and ends_words
        self._memo = WordMemo(self._tokens)
        if len(self._links) < len(self._trie):
            raise self._corrupt()

    def _corrupt(self) -> CheckpointError:
        return CheckpointError(
            "the FastWordpiece model is corrupt: its failure links lead outside of its trie, or in a circle"
        )

    def __call__(self, texts: Strings) -> tuple[Strings, Tensor, Tensor, Tensor, Tensor]:
        """If a space always ends a word, texts are split at spaces, and each distinct word is matched once."""
        rows: list[bytes] = texts.ravel().tolist()
        if not rows:
            return strings([], (0,)), int64([]), int64([0]), int64([]), int64([])
        words = b" ".join(rows).split(b" ") if self._parts else rows  # a list per text would wake the garbage collector
        found = self._memo(words)
        each, taken = found.lengths, found.taken
        ends = each.cumsum()
        sizes = np.fromiter(map(len, words), np.int64, len(words)) + 1
        lengths = np.fromiter([row.count(b" ") + 1 if self._parts else 1 for row in rows], np.int64, len(rows))
        lasts = lengths.cumsum()
        before = sizes.cumsum() - sizes
        moved = np.repeat(before - np.repeat(before[lasts - lengths], lengths), each)
        splits = np.concatenate([[0], ends[lasts - 1]])
        columns = (found.ids[taken], splits, found.starts[taken] + moved, found.limits[taken] + moved)
        return found.pieces[taken], *map(torch.from_numpy, columns)  # type: ignore[reportUnknownMemberType,return-value]

    def _tokens(self, text: bytes) -> _Output:
        """The tokens of one text, or of the text between two spaces."""
        output = _Output()
        if self._whole_texts:
            self._text(text, output)
        else:
            self._single_word(text, output)
        output.keep()
        return output

    # -- one word -----------------------------------------------------------------------------------------------------------

    def _single_word(self, text: bytes, output: _Output) -> None:
        if not text:
            return
        if len(text) > self._max_bytes:
            output.unknown(self._unknown, self._unknown_id, 0, len(text))
            return
        word = _Word(0)
        for position in range(len(text)):
            if not self._match(text, text[position : position + 1], word, output):
                output.unknown(self._unknown, self._unknown_id, 0, len(text))
                return
        self._finish(text, len(text), word, output)

    def _match(self, text: bytes, character: bytes, word: _Word, output: _Output) -> bool:
        """Advances by one character, following failure links as needed; False if there are none left."""
        while (node := self._trie.step(word.node, character)) < 0:
            if not self._follow(text, word, output):
                return False
        word.node = node
        self._steps = 0
        return True

    def _follow(self, text: bytes, word: _Word, output: _Output) -> bool:
        """Emits the finished pieces and follows the failure link; False if the node has none."""
        value, link = self._trie.value(word.node), self._links[word.node]
        if value >= 0:
            self._add(text, word, value, output)
        elif link == _NO_NODE:
            return False
        else:
            start, count = self._pops[word.node] >> 8, (self._pops[word.node] & 0xFF) + 1
            for value in self._pool[start : start + count]:
                self._add(text, word, value, output)
        self._steps += 1
        if link >= len(self._trie) or self._steps > len(self._trie):
            raise self._corrupt()
        word.node = link
        return True

    def _add(self, text: bytes, word: _Word, value: int, output: _Output) -> None:
        """Decodes a token from a trie's value: bit 30 marks a suffix, then 22 bits of id, then 8 bits of length - 1
        without the prefix."""
        number, length = (value & 0x3FFFFF00) >> 8, (value & 0xFF) + 1
        if not word.done and value >> 30:
            length += len(self._suffix)  # a word that starts with "##" itself
        start = word.start + word.done
        piece = self._unknown if number == self._unknown_id else text[start : start + length]
        output.add(self._suffix + piece if word.done else piece, number, start, start + length)
        word.done += length

    def _finish(self, text: bytes, limit: int, word: _Word, output: _Output) -> None:
        """Emits the pieces matched since the last failure link."""
        if word.node == _ROOT:
            return
        if word.node == self._suffix_root and len(output.ids) == output.kept:
            self._finish_suffix(text, limit, word, output)
            return
        while word.node not in (self._suffix_root, self._break_root):
            if not self._follow(text, word, output):
                output.unknown(self._unknown, self._unknown_id, word.start, limit)
                return
        self._steps = 0
        output.keep()

    def _finish_suffix(self, text: bytes, limit: int, word: _Word, output: _Output) -> None:
        """Handles the word "##" itself: the model contains its tokens."""
        known = self._suffix_alone
        if len(known) == 1 and (known[0] & 0x3FFFFF00) >> 8 == self._unknown_id:
            output.unknown(self._unknown, self._unknown_id, word.start, limit)
            return
        for value in known:
            self._add(text, word, value, output)
        output.keep()

    # -- whole texts --------------------------------------------------------------------------------------------------------

    def _kind(self, character: bytes) -> tuple[bool, bool]:
        """(is white space, is a word by itself: punctuation or a Chinese character)."""
        kind = self._kinds.get(character)
        if kind is None:
            code = codepoint(character) if character else -1
            index = bisect_right(_STARTS, code) - 1
            kind = self._kinds[character] = (code in WHITE_SPACE, index >= 0 and code <= BREAKS[index][1])
        return kind

    def _text(self, text: bytes, output: _Output) -> None:
        characters = split_utf8(text)
        index, position = 0, 0
        last = -1
        before = read = b""  # the last two characters read; a mismatch is read again
        while index < len(characters):
            if index == last:
                raise InputError("FastWordpiece: no progress in the text: the model does not fit it")
            last = index
            word = _Word(position)
            length = 0
            while index < len(characters):  # until the text ends, the word is too long, or the trie has no transition
                character = characters[index]
                before, read = read, character
                if length + len(character) > self._max_bytes or not self._match(text, character, word, output):
                    break
                length += len(character)
                position += len(character)
                index += 1
            if index == len(characters):
                self._finish(text, len(text), word, output)
                return
            character = characters[index]
            white, alone = self._kind(character)
            if white or alone or (index and self._kind(before)[1]):
                self._finish(text, position, word, output)
                if white or position == word.start:
                    index += 1
                    position += len(character)
                    if not white:
                        output.unknown(self._unknown, self._unknown_id, word.start, position)
                continue
            index, position, limit = self._skip_word(characters, index + 1, position + len(character))
            output.unknown(self._unknown, self._unknown_id, word.start, limit)

    def _skip_word(self, characters: list[bytes], index: int, position: int) -> tuple[int, int, int]:
        """(next character, its position, end of the word): skips to the next boundary, and over it if it is white
        space."""
        limit = position
        while index < len(characters):
            white, alone = self._kind(characters[index])
            if alone and not white:
                break
            index += 1
            position += len(characters[index - 1])
            if white:
                break
            limit = position
        return index, position, limit


@module(stage="host", infer=returns(("string", (None,))))
class FastWordpieceDetokenizer:
    """`detokenizer(ids, splits)`, `[t], [n + 1] -> texts [n]`: words joined by spaces. Raises InputError for an id out
    of range.

    Source: tensorflow_text TFText>FastWordpieceDetokenize.
    """

    def __init__(self, model: Tensor) -> None:
        config = root(model.numpy().tobytes(), "FastWordpiece")
        self._suffix = config.string(5)
        self._supported = config.boolean(11)
        self._pieces = config.strings(12)
        self._is_suffix: list[bool] = (config.vector(13, "u1") != 0).tolist()
        if len(self._is_suffix) < len(self._pieces):
            raise CheckpointError("the FastWordpiece model is corrupt: suffix flags are missing for some pieces")

    def __call__(self, ids: Tensor, splits: Tensor) -> Strings:
        if not self._supported:
            raise InputError(
                "this FastWordpiece model was built without support_detokenization: it cannot turn ids into text"
            )
        numbers, bounds = integers(ids), integers(splits)
        texts = [self._decode(numbers[first:last]) for first, last in pairwise(bounds)]
        return strings(texts, (len(texts),))

    def _decode(self, numbers: list[int]) -> bytes:
        words: list[bytes] = []
        for number in numbers:
            if not 0 <= number < len(self._pieces):
                raise InputError(f"FastWordpiece: the id {number} is not within 0 and {len(self._pieces) - 1}")
            if not self._is_suffix[number]:
                words.append(self._pieces[number])
            elif words:
                words[-1] += self._pieces[number]
            else:
                words.append(self._suffix + self._pieces[number])
        return b" ".join(words)


def _units(config: Table, field: int) -> np.ndarray[Any, Any]:
    units = config.vector(field, "<u4")
    if not len(units):
        raise CheckpointError("the fast BERT model is corrupt: it has no trie")
    return units
