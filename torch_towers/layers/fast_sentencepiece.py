"""TensorFlow Text's own SentencePiece for small devices; its model is a FlatBuffer with two tries."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from torch_towers.errors import CheckpointError, InputError
from torch_towers.formats.byte_strings import strings
from torch_towers.formats.flatbuffer import Trie, root
from torch_towers.graph.registry import Strings, module, returns
from torch_towers.ops.text import integers

_WHITE = b" \t\r\n"
_SPACE = "\u2581".encode()
Rewrite = Callable[[bytes, int], tuple[int, bytes]]


@module(stage="host", infer=returns(("int32", (None,)), ("int32", (None,))))
class FastSentencepieceTokenizer:
    """`tokenizer(texts)`, `[n] -> ids [t], splits [n + 1]`: the segmentation with the highest score, in float32, over
    bytes.

    `model` is the serialized EncoderConfig, `[m]` uint8. Source: tensorflow_text TFText>FastSentencepieceTokenize.
    """

    def __init__(self, model: Tensor, *, add_bos: bool = False, add_eos: bool = False, reverse: bool = False) -> None:
        config = root(model.numpy().tobytes(), "FastSentencepiece")
        self._bos = [config.integer(1)] if add_bos else []
        self._eos = [config.integer(2)] if add_eos else []
        self._reverse = reverse
        self._unknown = config.integer(3, default=-1)
        self._unknown_penalty = config.real(4)
        self._offset = config.integer(5)
        pieces, prefixes = config.table(6), config.table(11)
        if pieces is None:
            raise CheckpointError("the FastSentencepiece model is corrupt: it has no pieces")
        self._pieces = Trie(pieces.vector(0, "<u4"))
        self._scores: list[float] = config.vector(7, "<f4").tolist()
        self._removes_spaces = config.boolean(8)
        self._dummy_prefix = config.boolean(9)
        self._escapes = config.boolean(10)
        self._prefixes = Trie(prefixes.vector(0, "<u4")) if prefixes else None
        self._replacements = config.string(12)

    def __call__(self, texts: Strings) -> tuple[Tensor, Tensor]:
        ids: list[int] = []
        splits = [0]
        for text in texts.ravel().tolist():
            row = self._bos + self._encode(self._normalize(text)) + self._eos
            ids += row[::-1] if self._reverse else row
            splits.append(len(ids))
        return torch.tensor(ids, dtype=torch.int32), torch.tensor(splits, dtype=torch.int32)

    def _normalize(self, text: bytes) -> bytes:
        if not text:
            return text
        if self._dummy_prefix:
            text = b" " + text
        if self._prefixes is not None:
            text = _rewrite(text, self._replace)
        if self._removes_spaces:
            text = _rewrite(text, _collapse)
            if text and text[-1] in _WHITE:
                text = text[:-1]
        if self._escapes:
            for space in _WHITE:
                text = text.replace(bytes([space]), _SPACE)
        return text

    def _replace(self, text: bytes, start: int) -> tuple[int, bytes]:
        """The longest prefix with a replacement."""
        assert self._prefixes is not None
        value, end = -1, start
        for value, end in self._prefixes.prefixes(text, start):  # noqa: B007  the last one is the longest
            pass
        if not 0 <= value < len(self._replacements):
            return start, b""
        stop = self._replacements.find(b"\0", value)
        return end, self._replacements[value:] if stop < 0 else self._replacements[value:stop]

    def _encode(self, text: bytes) -> list[int]:
        """Viterbi over the positions of `text`; float32 sums are double sums rounded by storing them in an `array`."""
        length = len(text)
        best = array("f", bytes(4 * (length + 1)))
        codes = [-1] * (length + 1)
        previous = [-1] * (length + 1)
        rounded = array("f", [0.0])
        for position in range(length):
            if position and previous[position] < 0:
                continue
            here = best[position]
            if self._unknown >= 0:
                rounded[0] = here + self._unknown_penalty
                end = position + 1
                if previous[end] < 0 or best[end] < rounded[0]:
                    merged = codes[position] == self._unknown
                    best[end], codes[end], previous[end] = (
                        rounded[0],
                        self._unknown,
                        previous[position] if merged else position,
                    )
            for value, end in self._pieces.prefixes(text, position):
                if value >= len(self._scores):
                    continue
                rounded[0] = here + self._scores[value]
                if previous[end] < 0 or best[end] < rounded[0]:
                    best[end], codes[end], previous[end] = rounded[0], value, position
        ids: list[int] = []
        position = length if previous[length] >= 0 else 0
        while position > 0:
            code = codes[position]
            ids.append(code if code == self._unknown else code + self._offset)
            position = previous[position]
        return ids[::-1]


def _rewrite(text: bytes, rewrite: Rewrite) -> bytes:
    """Applies `rewrite` at each position of `text`; it returns the next position and the output."""
    result = bytearray()
    position = 0
    while position < len(text):
        end, replacement = rewrite(text, position)
        if end == position:
            result.append(text[position])
            position += 1
        else:
            result += replacement
            position = end
    return bytes(result)


def _collapse(text: bytes, start: int) -> tuple[int, bytes]:
    """Collapses two or more white-space bytes into one space; a single one is unchanged."""
    end = start
    while end < len(text) and text[end] in _WHITE:
        end += 1
    return (end, b" ") if end - start > 1 else (start, b"")


@module(stage="host", infer=returns(("string", (None,))))
class FastSentencepieceDetokenizer:
    """`detokenizer(ids, splits)`, `[t], [n + 1] -> texts [n]`. Raises InputError for an id out of range.

    `model` is the serialized DecoderConfig, `[m]` uint8. Source: tensorflow_text TFText>FastSentencepieceDetokenize.
    """

    def __init__(self, model: Tensor) -> None:
        config = root(model.numpy().tobytes(), "FastSentencepiece")
        self._offset = config.integer(1)
        self._pieces = [piece.partition(b"\0")[0] for piece in config.strings(2)]
        self._removes_prefix = config.boolean(5)

    def __call__(self, ids: Tensor, splits: Tensor) -> Strings:
        codes, bounds = integers(ids), integers(splits)
        if bounds != sorted(bounds) or bounds[-1] - bounds[0] > len(codes):
            raise InputError(f"sentencepiece: the splits {bounds[:8]} do not divide {len(codes)} ids")
        texts: list[bytes] = []
        start = 0
        for first, last in pairwise(bounds):
            texts.append(self._decode(codes[start : start + last - first]))
            start += last - first
        return strings(texts, (len(texts),))

    def _decode(self, codes: list[int]) -> bytes:
        pieces: list[bytes] = []
        for code in codes:
            if not 0 <= code - self._offset < len(self._pieces):
                raise InputError(
                    f"sentencepiece: the id {code} is not within {self._offset} and {self._offset + len(self._pieces) - 1}"
                )
            pieces.append(self._pieces[code - self._offset])
        if pieces and self._removes_prefix and pieces[0].startswith(b" "):
            pieces[0] = pieces[0][1:]
        return b"".join(pieces)
