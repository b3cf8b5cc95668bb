"""WordPiece and SentencePiece against TensorFlow: saved as SavedModels, read without TensorFlow, bit-exact."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from tests.porting.converters.test_text import TEXTS, kernels, text
from tests.saved import check_saved
from tests.witness import as_array, tf
from torch_towers.errors import CheckpointError, InputError

spm: Any = pytest.importorskip("sentencepiece")

COVERED = {
    "WordpieceTokenizeWithOffsets", "SentencepieceOp", "SentencepieceTokenizeOp", "SentencepieceTokenizeWithOffsetsOp",
    "SentencepieceDetokenizeOp", "SentencepieceIdToStringOp", "SentencepieceStringToIdOp", "SentencepieceVocabSizeOp",
}  # fmt: skip

WORDS = as_array(
    [
        "",
        "unaffable",
        "unaffableX",
        "x",
        "##able",
        "日本",
        "日",
        "aff",
        "éa",
        "unéa",
        b"un\xffaff",
        b"\xff",
        "a" * 70,
        "una" * 30,
        "\0un",
    ]
)
VOCABULARY = ["[UNK]", "un", "##aff", "##able", "##a", "a", "日", "##日", "é", "##é", "aff", "##ab"]


def vocabulary() -> Any:
    ids = [0, 1, 2, 3, 4, 5, 6, 7, 8, -1, 10, 11]
    init = tf.lookup.KeyValueTensorInitializer(VOCABULARY, tf.constant(ids, tf.int64))
    return tf.lookup.StaticHashTable(init, -1)


@pytest.mark.parametrize(
    ("suffix", "most", "chars", "unknown", "split", "partition"),
    [
        ("##", 100, 0, True, False, "row_lengths"),
        ("##", 60, 2, True, True, "row_splits"),
        ("", 100, 0, False, True, "row_splits"),
        ("##", 5, 1, False, False, "row_lengths"),
        ("##", 5, 0, True, False, "row_lengths"),
    ],
)
def test_wordpiece(
    tmp_path: Path, suffix: str, most: int, chars: int, unknown: bool, split: bool, partition: str
) -> None:
    tokenize = kernels("wordpiece_tokenizer").wordpiece_tokenize_with_offsets
    check_saved(
        tmp_path, vocabulary,
        lambda table, x: tokenize(
            x, table.resource_handle, suffix_indicator=suffix, max_bytes_per_word=most, max_chars_per_token=chars,
            use_unknown_token=unknown, unknown_token="[UNK]", split_unknown_characters=split, output_row_partition_type=partition),
        WORDS, WORDS[:0], TEXTS,
    )  # fmt: skip


@pytest.fixture(scope="session")
def models() -> dict[str, bytes]:
    """SentencePiece models of every type, trained on words in seven scripts."""
    pick = random.Random(3)
    letters = [(97, 122), (0xE0, 0x17F), (0x3B1, 0x3C9), (0x430, 0x44F), (0x4E00, 0x4E40), (0xE01, 0xE2E), (97, 122)]
    words = ["".join(chr(pick.randint(*pick.choice(letters))) for _ in range(pick.randint(1, 7))) for _ in range(1500)]
    words += [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "lazy",
        "dog",
        "search",
        "model",
        "tower",
        "query",
        "candidate",
        "embedding",
    ] * 20
    lines = [" ".join(pick.choice(words) for _ in range(12)) for _ in range(1500)]

    def train(**options: Any) -> bytes:
        model = io.BytesIO()
        options = {
            "vocab_size": 1000,
            "character_coverage": 0.99,
            "num_threads": 1,
            "minloglevel": 2,
            "hard_vocab_limit": False,
        } | options
        spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **options)
        return model.getvalue()

    return {
        "unigram": train(model_type="unigram"),
        "bpe": train(model_type="bpe"),
        "bytes": train(model_type="bpe", byte_fallback=True),
        "unigram_bytes": train(model_type="unigram", byte_fallback=True),
        "spaces": train(model_type="unigram", normalization_rule_name="identity", remove_extra_whitespaces=False),
        "folded": train(model_type="unigram", add_dummy_prefix=False, normalization_rule_name="nmt_nfkc_cf"),
        "suffix": train(model_type="bpe", treat_whitespace_as_suffix=True, user_defined_symbols=["<sep>"], pad_id=3),
        "unmarked": train(model_type="unigram", bos_id=-1, eos_id=-1),
    }


SENTENCES = as_array(
    [
        *TEXTS.tolist(),
        b"the quick brown fox",
        b"   ",
        b" two  spaces ",
        "\u2581\u2581a \u2581",
        b"<s>a</s><unk><sep>x",
        b"<0x41>",
    ]
)


class Sentencepiece(tf.Module):
    """The resource alone, so that every op of the family can be called as it is."""

    def __init__(self, model: bytes) -> None:
        self.resource = text.SentencepieceTokenizer(model)._model_resource


@pytest.mark.parametrize("model", ["unigram", "bpe", "bytes", "unigram_bytes", "spaces", "folded", "suffix"])
def test_sentencepiece(tmp_path: Path, models: dict[str, bytes], model: str) -> None:
    raw = kernels("sentencepiece_tokenizer")

    def everything(made: Any, x: Any) -> list[Any]:
        handle = made.resource.resource_handle
        results: list[Any] = []
        for out_type in (tf.int32, tf.string):
            for bos, eos, reverse in (
                (False, False, False),
                (True, True, False),
                (True, False, True),
                (False, True, True),
            ):
                results += raw.sentencepiece_tokenize_with_offsets_op(
                    handle, x, 0, 1.0, bos, eos, reverse, out_type=out_type, Tsplits=tf.int32
                )
                values, splits = raw.sentencepiece_tokenize_op(handle, x, 1, 0.5, bos, eos, reverse, out_type=out_type)
                results += [values, splits, raw.sentencepiece_detokenize_op(handle, values, splits, bos, eos, reverse)]
        ids = raw.sentencepiece_tokenize_op(handle, x, 0, 1.0, False, False, False)[0]
        pieces = raw.sentencepiece_id_to_string_op(handle, ids)
        return [*results, pieces, raw.sentencepiece_string_to_id_op(handle, pieces), raw.sentencepiece_string_to_id_op(handle, x),
                raw.sentencepiece_vocab_size_op(handle)]  # fmt: skip

    check_saved(tmp_path, lambda: Sentencepiece(models[model]), everything, SENTENCES, SENTENCES[:0])


@pytest.mark.parametrize("out_type", [tf.int32, tf.string])
def test_n_best(tmp_path: Path, models: dict[str, bytes], out_type: Any) -> None:
    raw = kernels("sentencepiece_tokenizer")
    check_saved(
        tmp_path, lambda: Sentencepiece(models["unigram"]),
        lambda made, x: raw.sentencepiece_tokenize_op(
            made.resource.resource_handle, x, 4, 1.0, True, False, True, out_type=out_type, return_nbest=True),
        SENTENCES,
    )  # fmt: skip


def test_sampling_is_refused(tmp_path: Path, models: dict[str, bytes]) -> None:
    raw = kernels("sentencepiece_tokenizer")
    with pytest.raises(PortingError, match="random"):
        check_saved(
            tmp_path, lambda: Sentencepiece(models["unigram"]),
            lambda made, x: raw.sentencepiece_tokenize_op(made.resource.resource_handle, x, 5, 1.0, False, False, False), SENTENCES,
        )  # fmt: skip


def test_bad_models_and_ids(models: dict[str, bytes]) -> None:
    import torch

    from torch_towers.layers.sentencepiece import SentencepieceDetokenizer, SentencepieceTokenizer

    def stored(data: bytes) -> torch.Tensor:
        return torch.from_numpy(np.frombuffer(data, np.uint8).copy())

    with pytest.raises(CheckpointError, match="cannot be read"):
        SentencepieceTokenizer(stored(b"no model"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        SentencepieceTokenizer(stored(models["unigram"][: len(models["unigram"]) // 2]))
    with pytest.raises(InputError, match="no bos piece"):
        SentencepieceTokenizer(stored(models["unmarked"]), add_bos=True)
    detokenize = SentencepieceDetokenizer(stored(models["unigram"]))
    with pytest.raises(InputError, match="not within"):
        detokenize(torch.tensor([10**6]), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="do not divide"):
        detokenize(torch.tensor([1]), torch.tensor([0, 7]))
