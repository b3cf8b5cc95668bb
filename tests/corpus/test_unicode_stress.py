"""Every id of every TensorFlow Text tokenizer is bit-exact on the Unicode stress corpus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.corpus.stress import corpus, scripts
from tests.porting.converters.test_text import kernels, text
from tests.porting.converters.test_text_sentencepiece import models
from tests.saved import check_saved
from tests.witness import as_array, check_function, tf

__all__ = ["models"]


def test_size(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nUnicode stress corpus: {len(corpus())} texts in {len(scripts())} scripts")
    assert len(corpus()) >= 10_000
    assert len(scripts()) >= 20


def parts(*values: Any) -> list[Any]:
    """Ragged tensors as their flat values and row splits."""
    return [part for value in values for part in (value.flat_values, *value.nested_row_splits)]


def vocabulary() -> list[str]:
    """Whole words, and for half of the letters of each script the letter at the beginning and within a word."""
    pieces = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[MASK]",
        "[unused1]",
        "the",
        "quick",
        "brown",
        "##s",
        "un",
        "##aff",
        "##able",
        "3",
        "14",
        "##1",
        "'",
        "-",
        "##",
        "#",
        "!",
    ]
    for letters in scripts().values():
        for letter in letters[:60:2]:
            pieces += [letter, f"##{letter}"]
    pieces += list("abcdefghijklmnopqrstuvwxyz") + [f"##{letter}" for letter in "abcdeghijklnoprstuwxyz"]
    return list(dict.fromkeys(pieces))


@pytest.mark.parametrize("model", ["unigram", "bpe", "bytes", "unigram_bytes", "spaces", "folded", "suffix"])
def test_sentencepiece(tmp_path: Path, models: dict[str, bytes], model: str) -> None:
    marks = model in ("bpe", "spaces")

    def tokenize(tokenizer: Any, x: Any) -> list[Any]:
        ids, starts, limits = tokenizer.tokenize_with_offsets(x)
        return [*parts(ids, starts, limits), tokenizer.detokenize(ids)]

    check_saved(
        tmp_path, lambda: text.SentencepieceTokenizer(models[model], add_bos=marks, add_eos=marks), tokenize, corpus()
    )


@pytest.mark.parametrize("model", ["unigram", "spaces", "folded"])
def test_fast_sentencepiece(tmp_path: Path, models: dict[str, bytes], model: str) -> None:
    def tokenize(tokenizer: Any, x: Any) -> list[Any]:
        ids = tokenizer.tokenize(x)
        return [*parts(ids), tokenizer.detokenize(ids)]

    check_saved(tmp_path, lambda: text.FastSentencepieceTokenizer(models[model]), tokenize, corpus())


@pytest.mark.parametrize("lower", [True, False])
def test_bert(tmp_path: Path, lower: bool) -> None:
    pieces = vocabulary()

    def make() -> Any:
        init = tf.lookup.KeyValueTensorInitializer(pieces, tf.range(len(pieces), dtype=tf.int64))
        return text.BertTokenizer(
            tf.lookup.StaticVocabularyTable(init, 1), lower_case=lower, preserve_unused_token=not lower
        )

    check_saved(tmp_path, make, lambda tokenizer, x: parts(*tokenizer.tokenize_with_offsets(x)), corpus())


@pytest.mark.parametrize("lower", [True, False])
def test_fast_bert(tmp_path: Path, lower: bool) -> None:
    make = lambda: text.FastBertTokenizer(vocabulary(), lower_case_nfd_strip_accents=lower)  # noqa: E731
    check_saved(tmp_path, make, lambda tokenizer, x: parts(*tokenizer.tokenize_with_offsets(x)), corpus())


@pytest.mark.parametrize("kind", ["WhitespaceTokenizer", "UnicodeScriptTokenizer", "UnicodeCharTokenizer"])
def test_splitters(tmp_path: Path, kind: str) -> None:
    make = lambda: getattr(text, kind)()  # noqa: E731
    check_saved(tmp_path, lambda: tf.Module(), lambda _, x: parts(*make().tokenize_with_offsets(x)), corpus())


def test_word_shapes(tmp_path: Path) -> None:
    shapes = list(text.WordShape)
    tokens = [token for item in corpus().tolist() for token in item.split()[:3] if len(token) < 100]
    check_saved(
        tmp_path,
        lambda: tf.Module(),
        lambda _, x: [text.wordshape(x, shape) for shape in shapes],
        as_array(tokens[::2]),
    )


def test_split_merge() -> None:
    """Without texts that end within a character: there TensorFlow reads on behind the text."""
    whole = re.compile(rb"(?:[\x00-\xbf]|[\xc0-\xdf].|[\xe0-\xef]..|[\xf0-\xff]...)*", re.DOTALL)
    texts = as_array([item for item in corpus().tolist() if whole.fullmatch(item)])
    splits = np.cumsum([0, *(len(item) for item in texts.tolist())]).astype(np.int32)
    labels = np.random.default_rng(5).integers(0, 2, splits[-1]).astype(np.int32)
    split = kernels("split_merge_tokenizer").split_merge_tokenize_with_offsets
    check_function(
        lambda x, labels, splits: split(x, labels, splits), [{"x": texts, "labels": labels, "splits": splits}]
    )
