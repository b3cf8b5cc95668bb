"""The tokenizers whose models are FlatBuffers against TensorFlow, and against damaged models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.porting.converters.test_text import TEXTS, kernels, text
from tests.porting.converters.test_text_sentencepiece import SENTENCES, WORDS, models
from tests.witness import as_array, check_function
from torch_towers.errors import CheckpointError, TorchTowersError
from torch_towers.layers.fast_bert import FastBertNormalizer, FastWordpieceDetokenizer, FastWordpieceTokenizer
from torch_towers.layers.fast_sentencepiece import FastSentencepieceDetokenizer, FastSentencepieceTokenizer

COVERED = {
    "TFText>FastSentencepieceTokenize", "TFText>FastSentencepieceDetokenize", "FastBertNormalize", "TFText>FastBertNormalize",
    "FastWordpieceTokenizeWithOffsets", "TFText>FastWordpieceTokenizeWithOffsets", "TFText>FastWordpieceDetokenize",
}  # fmt: skip

VOCABULARY = [
    "[UNK]", "a", "un", "##aff", "##able", "##a", "##ab", "ab", "##c", "abcdef", "##ef", "##d", "日", "##日", "é", "##é", "the", "quick",
    "##s", "##", "#", "###", "!", "##!", "-", "x", "##x", "brown",
]  # fmt: skip
MORE = as_array(
    [
        "abcdefx",
        "abcde",
        "##",
        "## a",
        "##a",
        "#",
        "###",
        "a##",
        "a## b",
        "a!b!!c",
        "!",
        "a日b日日",
        "unaffable!",
        "abcd ef-x  the",
        "!##",
        "x" * 150,
        "x" * 60 + "!" + "the",
        "\0",
        "ab\0ab",
        b"a\xff!",
        b"\xe2\x82 a\xe2",
    ]
)
__all__ = ["models"]


@pytest.mark.parametrize("model", ["unigram", "bpe", "bytes", "spaces", "folded", "suffix"])
def test_fast_sentencepiece(models: dict[str, bytes], model: str) -> None:
    tokenizer = text.FastSentencepieceTokenizer(models[model])
    raw = kernels("fast_sentencepiece_tokenizer")
    encoder, decoder = tokenizer._converted_model.numpy(), tokenizer._converted_model_detokenizer.numpy()

    def everything(x: Any) -> list[Any]:
        results: list[Any] = []
        for bos, eos, reverse in ((False, False, False), (True, True, False), (True, False, True), (False, True, True)):
            results += raw.tf_text_fast_sentencepiece_tokenize(encoder, x, 0, 1.0, bos, eos, reverse)
        ids, splits = results[:2]
        return [*results, raw.tf_text_fast_sentencepiece_detokenize(decoder, ids, splits)]

    check_function(everything, [{"x": SENTENCES}, {"x": SENTENCES[:0]}, {"x": MORE}])


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("lower", [False, True])
def test_fast_bert_normalize(lower: bool, offsets: bool) -> None:
    normalizer = text.FastBertNormalizer(lower_case_nfd_strip_accents=lower)
    raw = kernels("fast_bert_normalizer")
    check_function(
        lambda x: raw.fast_bert_normalize(x, normalizer._model.numpy(), get_offsets=offsets),
        [{"x": TEXTS}, {"x": TEXTS[:0]}, {"x": MORE}],
    )


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("suffix", ["##", "", "<s>"])
@pytest.mark.parametrize("most", [100, 7])
def test_fast_wordpiece(single: bool, suffix: str, most: int) -> None:
    vocabulary = list(
        dict.fromkeys(piece.replace("##", suffix) if piece not in ("##", "###") else piece for piece in VOCABULARY)
    )
    tokenizer = text.FastWordpieceTokenizer(
        [piece for piece in vocabulary if piece], suffix_indicator=suffix, max_bytes_per_word=most, no_pretokenization=single,
        support_detokenization=True, token_out_type=np.int64,
    )  # fmt: skip
    raw = kernels("fast_wordpiece_tokenizer")

    def everything(x: Any) -> list[Any]:
        found = raw.fast_wordpiece_tokenize_with_offsets(x, tokenizer._model.numpy())
        ids = np.int32(1) * tf_cast(found[1])
        return [*found, raw.tf_text_fast_wordpiece_detokenize(ids, found[2], tokenizer._model.numpy())]

    check_function(everything, [{"x": TEXTS}, {"x": TEXTS[:0]}, {"x": MORE}, {"x": WORDS}])


def tf_cast(ids: Any) -> Any:
    from tests.witness import tf

    return tf.cast(ids, tf.int32)


def test_damaged_models(models: dict[str, bytes]) -> None:
    """A model with any part overwritten gives an error of ours, or some tokens: never a crash, never an endless loop."""
    sentencepiece = text.FastSentencepieceTokenizer(models["unigram"])
    wordpiece = text.FastWordpieceTokenizer(VOCABULARY, support_detokenization=True)
    normalizer = text.FastBertNormalizer()
    ids, splits = torch.tensor([3, 5, 9]), torch.tensor([0, 2, 3])
    cases: list[tuple[Any, Any, tuple[Any, ...]]] = [
        (FastSentencepieceTokenizer, sentencepiece._converted_model, (MORE,)),
        (FastSentencepieceDetokenizer, sentencepiece._converted_model_detokenizer, (ids, splits)),
        (FastBertNormalizer, normalizer._model, (MORE,)),
        (FastWordpieceTokenizer, wordpiece._model, (MORE,)),
        (FastWordpieceDetokenizer, wordpiece._model, (ids, splits)),
    ]
    generator = np.random.default_rng(0)
    refused = 0
    for kind, model, operands in cases:
        data = np.array(model, np.uint8)
        for size in (0, 3, 8, 40):
            with pytest.raises(CheckpointError):
                kind(torch.from_numpy(data[:size].copy()))
        for _ in range(30):
            damaged = data.copy()
            at = generator.integers(0, min(len(data), 400) if generator.random() < 0.7 else len(data))
            damaged[at : at + generator.integers(1, 9)] = generator.integers(0, 256)
            try:
                kind(torch.from_numpy(damaged))(*operands)
            except TorchTowersError:
                refused += 1
    assert refused > 20
