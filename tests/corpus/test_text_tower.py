"""A tower over four tokenizers of TensorFlow Text: ported, saved, loaded, and compared with TensorFlow on the stress corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import torch_towers
from porting import port
from tests.corpus.stress import corpus
from tests.porting.converters.test_text import text
from tests.porting.converters.test_text_sentencepiece import models
from tests.witness import tf

__all__ = ["models"]
PIECES = ["[UNK]", "[CLS]", "[SEP]", "the", "quick", "brown", "a", "b", "##s", "##c", "!", "日", "本"]


def tower(model: bytes) -> Any:
    module = tf.Module()
    init = tf.lookup.KeyValueTensorInitializer(PIECES, tf.range(len(PIECES), dtype=tf.int64))
    module.tokenizers = [
        text.SentencepieceTokenizer(model, add_bos=True), text.FastSentencepieceTokenizer(model),
        text.BertTokenizer(tf.lookup.StaticVocabularyTable(init, 1), lower_case=True), text.FastBertTokenizer(PIECES),
    ]  # fmt: skip
    module.embeddings = tf.Variable(tf.random.stateless_normal([1001, 8], [1, 2]), name="embeddings")

    def embed(text: Any) -> Any:
        rows: list[Any] = []
        for tokenizer in module.tokenizers:
            ids = tokenizer.tokenize(text)
            ids = tf.cast(ids.merge_dims(1, -1) if ids.ragged_rank > 1 else ids, tf.int32)
            rows.append(tf.reduce_sum(tf.gather(module.embeddings, ids.to_tensor(1000, shape=[None, 16])), 1))
        return {"embedding": tf.math.l2_normalize(tf.concat(rows, 1), 1)}

    module.serve = tf.function(embed, input_signature=[tf.TensorSpec([None], tf.string, "text")])
    return module


def test_text_tower(tmp_path: Path, models: dict[str, bytes]) -> None:
    module = tower(models["bytes"])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
    assert port.main(["--query", str(tmp_path / "saved"), "-o", str(tmp_path / "ported")]) == 0
    texts = corpus()[::4]
    expected = module.serve(tf.constant(texts))["embedding"].numpy()
    found = torch_towers.load(tmp_path / "ported").encode_query(texts).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)  # sums of 16 rows, in another order
