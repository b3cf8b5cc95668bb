"""TensorFlow Text: WordPiece and SentencePiece. A tokenizer that several nodes use is one module of the checkpoint."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Constant, Resource, constant
from porting.converters.lookup import vocabulary
from porting.errors import PortingError
from torch_towers.layers.sentencepiece import SentencepieceIds

Emit = ConvertingEmitter
_WORDPIECE = ("output_values", "output_row_lengths", "start_values", "limit_values")
_SENTENCEPIECE = ("output_values", "output_splits", "output_offset_starts", "output_offset_limits")


def module(t: Emit, kind: str, args: dict[str, Any], *operands: Any) -> Any:
    """A call of a tokenizer: equal ones are one module, named after the first caller."""
    key = f"{kind} {sorted(args.items())}"
    name = t.context.tables.get(key)
    if name is None:
        name = t.context.tables[key] = t.names(t.place or kind.lower())
    return t.module(kind, name, args, *operands)


def stored(t: Emit, data: torch.Tensor, wanted: str) -> str:
    """The name of a serialized model in the store: equal models are stored once."""
    key = f"bytes {hashlib.sha256(data.numpy().tobytes()).hexdigest()}"
    name = t.context.tables.get(key)
    if name is None:
        name = t.context.tables[key] = t.names(wanted)
        t.store[name] = data
    return name


# -- WordPiece ------------------------------------------------------------------------------------------------------------


@converter("WordpieceTokenizeWithOffsets", outputs=_WORDPIECE)
def wordpiece(t: Emit, words: Any, table: Resource, *, suffix_indicator: bytes, max_bytes_per_word: int, max_chars_per_token: int = 0,
              use_unknown_token: bool, unknown_token: bytes, split_unknown_characters: bool = False,
              output_row_partition_type: bytes = b"row_lengths") -> Any:  # fmt: skip
    args = {
        **vocabulary(t, table),
        "suffix_indicator": suffix_indicator,
        "max_bytes_per_word": max_bytes_per_word,
        "max_chars_per_token": max_chars_per_token,
        "unknown_token": unknown_token if use_unknown_token else None,
        "split_unknown_characters": split_unknown_characters,
        "row_splits": output_row_partition_type == b"row_splits",
    }
    return module(t, "WordpieceTokenizer", args, words)


# -- SentencePiece --------------------------------------------------------------------------------------------------------


@converter("SentencepieceOp", ignores=("use_node_name_sharing",))
def sentencepiece_model(t: Emit, *, model: bytes) -> Resource:
    return Resource(
        "sentencepiece", stored(t, torch.from_numpy(np.frombuffer(model, np.uint8).copy()), "sentencepiece.model")
    )


def _model(t: Emit, handle: Any) -> dict[str, Any]:
    if not isinstance(handle, Resource) or handle.kind != "sentencepiece":
        raise PortingError(f"{t.scope!r} uses a SentencePiece model that is known only at run time")
    return {"model": handle.key}


_SAMPLES = "sampling (nbest_size > 1 or < 0): it is random; return_nbest with offsets"


def _tokenize(t: Emit, handle: Any, x: Any, nbest_size: Any, *, out_type: str, return_nbest: bool, **args: Any) -> Any:
    sizes = nbest_size.reshape(-1).tolist()
    if not return_nbest and any(size not in (0, 1) for size in sizes):
        raise PortingError(
            f"{t.scope!r} samples among segmentations (nbest_size {sizes[0]}), which is random: export the model without sampling"
        )
    args |= {**_model(t, handle), "pieces": out_type == "string", "nbest": sizes[0] if return_nbest else 0}
    return module(t, "SentencepieceTokenizer", args, x)


@converter("SentencepieceTokenizeOp", outputs=("output_values", "output_splits"), refuses=_SAMPLES)
def sentencepiece(t: Emit, handle: Any, x: Any, nbest_size: np.ndarray, alpha: Any, add_bos: bool, add_eos: bool, reverse: bool, *,
                  out_type: str = "int32", Tsplits: str = "int64", return_nbest: bool = False) -> Any:  # fmt: skip
    return _tokenize(t, handle, x, nbest_size, out_type=out_type, return_nbest=return_nbest, add_bos=add_bos, add_eos=add_eos,
                     reverse=reverse, splits_dtype=Tsplits, offsets=False)[:2]  # fmt: skip


@converter("SentencepieceTokenizeWithOffsetsOp", outputs=_SENTENCEPIECE, refuses=_SAMPLES)
def sentencepiece_with_offsets(t: Emit, handle: Any, x: Any, nbest_size: np.ndarray, alpha: Any, add_bos: bool, add_eos: bool,
                               reverse: bool, *, out_type: str = "int32", Tsplits: str = "int64", return_nbest: bool = False) -> Any:  # fmt: skip
    if return_nbest:
        raise PortingError(
            f"{t.scope!r} asks for offsets of the n best segmentations, which the package sentencepiece does not return"
        )
    return _tokenize(t, handle, x, nbest_size, out_type=out_type, return_nbest=False, add_bos=add_bos, add_eos=add_eos,
                     reverse=reverse, splits_dtype=Tsplits)  # fmt: skip


@converter("SentencepieceDetokenizeOp")
def sentencepiece_detokenize(
    t: Emit, handle: Any, values: Any, splits: Any, add_bos: Any, add_eos: Any, reverse: bool
) -> Any:
    """Begin and end markers decode to nothing."""
    return module(
        t, "SentencepieceDetokenizer", {**_model(t, handle), "reverse": reverse}, t.tensor(values), t.tensor(splits)
    )


@converter("SentencepieceIdToStringOp")
def sentencepiece_pieces(t: Emit, handle: Any, ids: Any) -> Any:
    return module(t, "SentencepiecePieces", _model(t, handle), t.tensor(ids))


@converter("SentencepieceStringToIdOp")
def sentencepiece_ids(t: Emit, handle: Any, pieces: Any) -> Any:
    return module(t, "SentencepieceIds", _model(t, handle), pieces)


@converter("SentencepieceVocabSizeOp")
def sentencepiece_size(t: Emit, handle: Any) -> Constant:
    size = SentencepieceIds(t.store[_model(t, handle)["model"]]).processor.GetPieceSize()
    return constant(torch.tensor(size, dtype=torch.int32))


# -- models in FlatBuffers ------------------------------------------------------------------------------------------------


def _flat(t: Emit, model: np.ndarray, wanted: str) -> dict[str, Any]:
    return {"model": stored(t, torch.from_numpy(np.array(model, np.uint8)), wanted)}


@converter("TFText>FastSentencepieceTokenize", outputs=("output_values", "output_splits"), ignores=("out_type",),
           refuses="string outputs, for which TensorFlow has no kernel")  # fmt: skip
def fast_sentencepiece(
    t: Emit, model: np.ndarray, x: Any, nbest_size: Any, alpha: Any, add_bos: bool, add_eos: bool, reverse: bool
) -> Any:
    """TensorFlow ignores `nbest_size` and `alpha`."""
    args = _flat(t, model, "sentencepiece.encoder") | {"add_bos": add_bos, "add_eos": add_eos, "reverse": reverse}
    return module(t, "FastSentencepieceTokenizer", args, x)


@converter("TFText>FastSentencepieceDetokenize")
def fast_sentencepiece_detokenize(t: Emit, model: np.ndarray, ids: Any, splits: Any) -> Any:
    return module(
        t, "FastSentencepieceDetokenizer", _flat(t, model, "sentencepiece.decoder"), t.tensor(ids), t.tensor(splits)
    )


@converter(
    "FastBertNormalize", "TFText>FastBertNormalize", outputs=("output_values", "output_offsets", "output_row_splits")
)
def fast_bert_normalize(t: Emit, x: Any, model: np.ndarray, *, get_offsets: bool = False) -> Any:
    return module(t, "FastBertNormalizer", _flat(t, model, "bert.normalizer") | {"get_offsets": get_offsets}, x)


@converter("FastWordpieceTokenizeWithOffsets", "TFText>FastWordpieceTokenizeWithOffsets",
           outputs=("output_subwords", "output_ids", "output_row_splits", "start_values", "end_values"))  # fmt: skip
def fast_wordpiece(t: Emit, x: Any, model: np.ndarray) -> Any:
    return module(t, "FastWordpieceTokenizer", _flat(t, model, "wordpiece.model"), x)


@converter("TFText>FastWordpieceDetokenize")
def fast_wordpiece_detokenize(t: Emit, ids: Any, splits: Any, model: np.ndarray) -> Any:
    return module(t, "FastWordpieceDetokenizer", _flat(t, model, "wordpiece.model"), t.tensor(ids), t.tensor(splits))
