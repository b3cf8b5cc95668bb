"""Text towers without Keras: TensorFlow Text's tokenizers before an embedding, and hashed n-grams before a deep averaging network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_text as text

from tests.witness import tf

RNG = np.random.default_rng(17)
WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "quick",
    "brown",
    "fox",
    "jump",
    "over",
    "lazy",
    "dog",
    "cat",
    "sat",
    "mat",
    "blue",
    "sky",
    "play",
    "editor",
    "image",
    "tool",
    "library",
]
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *WORDS,
    *(f"##{end}" for end in ("s", "ed", "ing", "er", "a", "b", "c")),
    *"bcxyz.,!日本",
]


def _weight(name: str, *shape: int) -> Any:
    return tf.Variable(RNG.normal(0, 0.4, shape).astype(np.float32), name=name)


def _save(path: Path, module: Any, embed: Any) -> None:
    serve = tf.function(embed, input_signature=[tf.TensorSpec([None], tf.string, "text")])
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})


def wordpiece(path: Path) -> None:
    """BertTokenizer: normalization, splitting and WordPiece as three ops."""
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.KeyValueTensorInitializer(PIECES, tf.range(len(PIECES), dtype=tf.int64)), 1
    )
    _pieces(path, text.BertTokenizer(table, lower_case=True))


def fast_bert(path: Path) -> None:
    """FastBertTokenizer: the same in one op."""
    _pieces(path, text.FastBertTokenizer(PIECES, lower_case_nfd_strip_accents=True))


def _pieces(path: Path, tokenizer: Any) -> None:
    module = tf.Module()
    module.tokenizer, module.table, module.kernel = tokenizer, _weight("table", 64, 16), _weight("kernel", 16, 8)

    def embed(text: Any) -> dict[str, Any]:
        ids = tf.cast(tokenizer.tokenize(text).merge_dims(1, -1), tf.int32).to_tensor(63, shape=[None, 24])
        mask = tf.cast(ids != 63, tf.float32)[:, :, None]
        rows = tf.reduce_sum(tf.gather(module.table, ids) * mask, 1) / (tf.reduce_sum(mask, 1) + 1.0)
        return {"embedding": tf.math.l2_normalize(rows @ module.kernel, 1)}

    _save(path, module, embed)


def script_words(path: Path) -> None:
    """Words split where the script changes, and the average of those that are known."""
    module = tf.Module()
    words = tf.lookup.KeyValueTensorInitializer(
        [b"red", b"green", b"blue", "über".encode(), b"!"], tf.range(5, dtype=tf.int64)
    )
    module.words, module.table = tf.lookup.StaticVocabularyTable(words, 3), _weight("table", 8, 16)
    tokenizer = text.UnicodeScriptTokenizer()

    def embed(text: Any) -> dict[str, Any]:
        ids = module.words.lookup(tokenizer.tokenize(tf.strings.lower(text, encoding="utf-8")))
        return {"embedding": tf.math.l2_normalize(tf.reduce_mean(tf.gather(module.table, ids), 1), 1)}

    _save(path, module, embed)


def letters(path: Path) -> None:
    """The first letters of a text through a convolution, and the largest number of each channel."""
    module = tf.Module()
    module.table, module.kernel = _weight("table", 100, 8), _weight("kernel", 3, 8, 16)

    def embed(text: Any) -> dict[str, Any]:
        codes = tf.strings.unicode_decode(tf.strings.lower(text, encoding="utf-8"), "UTF-8")
        rows = tf.gather(module.table, tf.math.floormod(codes, 100).to_tensor(shape=[None, 24]))
        return {"embedding": tf.reduce_max(tf.nn.relu(tf.nn.conv1d(rows, module.kernel, 1, "SAME")), 1)}

    _save(path, module, embed)


def hashed_ngrams(path: Path) -> None:
    """Words and pairs of words, hashed, averaged by the square root of their number, and two dense layers."""
    module = tf.Module()
    module.table = _weight("table", 500, 16)
    module.first, module.second = _weight("first", 16, 16), _weight("second", 16, 8)

    def embed(text: Any) -> dict[str, Any]:
        clean = tf.strings.regex_replace(tf.strings.lower(text, encoding="utf-8"), r"[^\w\s]", " ")
        grams = tf.strings.ngrams(tf.strings.split(clean), [1, 2])
        ids = tf.strings.to_hash_bucket_fast(grams.flat_values, 500)
        pooled = tf.nn.safe_embedding_lookup_sparse(module.table, grams.with_values(ids).to_sparse(), combiner="sqrtn")
        return {"embedding": tf.tanh(tf.tanh(pooled @ module.first) @ module.second)}

    _save(path, module, embed)
