"""SentencePiece: text to the pieces of a trained model and back, with Google's library.

TensorFlow Text's version (SentencePiece 0.1.96) and the package differ in two things, handled here: the order
of "reverse" and the begin and end markers, and white space at the start of decoded text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import CheckpointError, InputError
from torch_towers.formats.byte_strings import strings
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Spec, Strings, elementwise, module, returns
from torch_towers.kernels.threads import threads
from torch_towers.ops.ragged import padded_rows
from torch_towers.ops.text import int64, integers

Int32 = np.ndarray[Any, np.dtype[np.int32]]
Int64 = np.ndarray[Any, np.dtype[np.int64]]
Encoded = tuple[list[Any], list[int], list[int]]
_SPACE = "\u2581"
_MIN_PARALLEL_TEXTS = 64  # texts above which starting threads pays off


class _Model:
    """A SentencePiece model: `model` is its serialized proto, `[n]` uint8."""

    def __init__(self, model: Tensor) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise CheckpointError("this tower needs the package sentencepiece: pip install sentencepiece") from error
        self.processor: Any = SentencePieceProcessor()
        try:
            self.processor.LoadFromSerializedProto(model.numpy().tobytes())
        except RuntimeError as error:
            raise CheckpointError(f"the SentencePiece model cannot be read: {error}") from error

    def mark(self, name: str) -> tuple[int, bytes]:
        """The id and the piece of "bos" or "eos"."""
        number = self.processor.bos_id() if name == "bos" else self.processor.eos_id()
        if number < 0:
            raise InputError(f"the SentencePiece model has no {name} piece: do not ask for one (add_{name})")
        return number, self.processor.IdToPiece(number).encode()


class _Rows:
    """The ids of texts, batched over as many threads as pay off."""

    def __init__(self, processor: Any, add_bos: bool, add_eos: bool, reverse: bool) -> None:
        self._encode, self._reverse = processor.Encode, reverse
        self._options: dict[str, Any] = {"return_type": "numpy", "add_bos": add_bos, "add_eos": add_eos}

    def flat(self, texts: list[bytes]) -> tuple[Int32, Int64]:
        """All ids, and the number of ids of each text."""
        if len(texts) < _MIN_PARALLEL_TEXTS:
            rows: list[Int32] = [self._encode(text, **self._options) for text in texts]
        else:
            each = list(dict.fromkeys(texts))  # queries repeat often
            found = dict(zip(each, self._encode(each, num_threads=threads(), **self._options), strict=True))
            rows = [found[text] for text in texts]
        if self._reverse:
            rows = [row[::-1] for row in rows]
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        return np.concatenate(rows, dtype=np.int32) if rows else np.empty(0, np.int32), counts

    def padded(self, texts: list[bytes], shift: int, pad: int, length: int) -> Int32:
        """The ids plus `shift`, in rows of `length` (-1: the longest), padded with `pad`."""
        values, counts = self.flat(texts)
        return padded_rows(values + np.int32(shift), counts, length, pad)


def _encode_spec(x: Spec, *, pieces: bool = False, splits_dtype: str = "int64", **attrs: Any) -> list[Spec]:
    values: Spec = ("string" if pieces else "int32", (None,))
    return [values, (splits_dtype, (None,)), ("int64", (None,)), ("int64", (None,))]


@module(stage="host", infer=_encode_spec)
class SentencepieceTokenizer(_Model):
    """`tokenizer(texts)`, `[n] -> ids or pieces [t], splits [n + 1], starts [t], limits [t]` (offsets in bytes).

    `nbest` > 0 returns that many segmentations of each text, one row each, with offsets 0. Without `offsets`, offsets
    are 0 too, and all texts are encoded at once. Source: tensorflow_text SentencepieceTokenizeOp,
    SentencepieceTokenizeWithOffsetsOp.
    """

    def __init__(self, model: Tensor, *, add_bos: bool = False, add_eos: bool = False, reverse: bool = False, pieces: bool = False,
                 nbest: int = 0, splits_dtype: Dtype = "int64", offsets: bool = True) -> None:  # fmt: skip
        super().__init__(model)
        self._bos = self.mark("bos") if add_bos else None
        self._eos = self.mark("eos") if add_eos else None
        self._reverse = reverse
        self._pieces = pieces
        self._nbest = nbest
        self._ids_only = not offsets and not pieces and not nbest
        self._rows = _Rows(self.processor, add_bos, add_eos, reverse)
        self._splits_dtype = splits_dtype

    def __call__(self, texts: Strings) -> tuple[Tensor | Strings, Tensor, Tensor, Tensor]:
        if self._ids_only:
            return self._ids(texts.ravel().tolist())
        values: list[Any] = []
        starts: list[int] = []
        limits: list[int] = []
        splits = [0]
        for text in texts.ravel().tolist():
            for row in self._encode(text):
                for column, part in zip((values, starts, limits), self._marked(row), strict=True):
                    column += part[::-1] if self._reverse else part
                splits.append(len(values))
        tokens = strings(values, (len(values),)) if self._pieces else torch.tensor(values, dtype=torch.int32)
        return tokens, torch.tensor(splits, dtype=torch_dtype(self._splits_dtype)), int64(starts), int64(limits)

    def _ids(self, texts: list[bytes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, counts = self._rows.flat(texts)
        splits = torch.zeros(len(counts) + 1, dtype=torch_dtype(self._splits_dtype))
        splits[1:] = torch.from_numpy(counts.cumsum())  # type: ignore[reportUnknownMemberType]
        none = torch.zeros((), dtype=torch.int64).expand(len(values))
        return torch.from_numpy(values), splits, none, none  # type: ignore[reportUnknownMemberType]

    def _encode(self, text: bytes) -> list[Encoded]:
        if self._nbest:
            kind = bytes if self._pieces else int
            found: list[list[Any]] = self.processor.NBestEncode(text, nbest_size=self._nbest, return_type=kind)
            return [(row, [0] * len(row), [0] * len(row)) for row in found]
        item = self.processor.Encode(text, return_type="offset_mapping", return_bytes=True)
        offsets = item["offsets"]
        return [
            (
                item["pieces" if self._pieces else "ids"],
                [start for start, _ in offsets],
                [limit for _, limit in offsets],
            )
        ]

    def _marked(self, row: Encoded) -> Encoded:
        """A row with its begin and end markers, whose offsets are always 0."""
        which = 1 if self._pieces else 0
        before: list[Any] = [] if self._bos is None else [(self._bos[which], 0, 0)]
        after: list[Any] = [] if self._eos is None else [(self._eos[which], 0, 0)]
        values, starts, limits = ([mark[i] for mark in before] + row[i] + [mark[i] for mark in after] for i in range(3))
        return values, starts, limits


def _rows_spec(x: Spec, *, length: int = -1, **args: Any) -> list[Spec]:
    return [("int32", (None if x[1] is None else x[1][0], None if length < 0 else length))]


@module(stage="host", infer=_rows_spec)
class SentencepieceRows(_Model):
    """`rows(texts)`, `[n] -> ids [n, length]` int32: a SentencepieceTokenizer whose ids plus `shift` are padded with
    `pad`.

    `length` -1 means the longest row. Source: tensorflow_text SentencepieceTokenizeOp, RaggedTensorToTensor.
    """

    def __init__(self, model: Tensor, *, add_bos: bool = False, add_eos: bool = False, reverse: bool = False, shift: int = 0, pad: int = 0,
                 length: int = -1) -> None:  # fmt: skip
        super().__init__(model)
        for name, wanted in (("bos", add_bos), ("eos", add_eos)):
            if wanted:
                self.mark(name)
        self._rows = _Rows(self.processor, add_bos, add_eos, reverse)
        self._shift, self._pad, self._length = shift, pad, length

    def __call__(self, texts: Strings) -> Tensor:
        rows = self._rows.padded(texts.ravel().tolist(), self._shift, self._pad, self._length)
        return torch.from_numpy(rows)  # type: ignore[reportUnknownMemberType]


@module(stage="host", infer=returns(("string", (None,))))
class SentencepieceDetokenizer(_Model):
    """`detokenizer(ids or pieces, splits)`, `[t], [n + 1] -> texts [n]`. Raises InputError for an id out of range.

    Source: tensorflow_text SentencepieceDetokenizeOp.
    """

    def __init__(self, model: Tensor, *, reverse: bool = False) -> None:
        super().__init__(model)
        self._reverse = reverse
        space = self.processor.PieceToId(_SPACE)
        keeps_spaces = self.processor.Decode([space, space], return_type=bytes) == b" "
        self._dropped: set[Any] = set()
        if keeps_spaces:  # TensorFlow's version drops white space of all pieces before the first text, the package only that of the first
            silent = [number for number in range(self.processor.GetPieceSize()) if self.processor.IsControl(number)]
            self._dropped = {
                item for number in [space, *silent] for item in (number, self.processor.IdToPiece(number).encode())
            }

    def __call__(self, values: Tensor | Strings, splits: Tensor) -> Strings:
        flat: list[Any] = values.tolist()  # type: ignore[reportUnknownMemberType]
        bounds = integers(splits)
        if any(not 0 <= first <= last <= len(flat) for first, last in itertools.pairwise(bounds)):
            raise InputError(f"sentencepiece: the splits {bounds[:8]} do not divide {len(flat)} values")
        texts = [self._decode(flat[first:last]) for first, last in itertools.pairwise(bounds)]
        return strings(texts, (len(texts),))

    def _decode(self, row: Sequence[Any]) -> bytes:
        row = row[::-1] if self._reverse else row
        begin = next((index for index, value in enumerate(row) if value not in self._dropped), len(row))
        try:
            return self.processor.Decode(list(row[begin:]), return_type=bytes) if begin < len(row) else b""
        except IndexError as error:
            size = self.processor.GetPieceSize()
            raise InputError(f"sentencepiece: an id among {list(row[:8])} is not within 0 and {size - 1}") from error


@module(stage="host", infer=elementwise("string"))
class SentencepiecePieces(_Model):
    """`pieces(ids)`, `[...] -> [...]`: the piece of each id. Source: tensorflow_text SentencepieceIdToStringOp."""

    def __call__(self, ids: Tensor) -> Strings:
        try:
            pieces = [self.processor.IdToPiece(number).encode() for number in integers(ids.reshape(-1))]
        except IndexError as error:
            raise InputError(f"sentencepiece: an id is not within 0 and {self.processor.GetPieceSize() - 1}") from error
        return strings(pieces, tuple(ids.shape))


@module(stage="host", infer=elementwise("int32"))
class SentencepieceIds(_Model):
    """`ids(pieces)`, `[...] -> [...]`: the id of each piece, the unknown id for others. Source:
    SentencepieceStringToIdOp."""

    def __call__(self, pieces: Strings) -> Tensor:
        ids = [self.processor.PieceToId(piece) for piece in pieces.ravel().tolist()]
        return torch.tensor(ids, dtype=torch.int32).reshape(pieces.shape)
