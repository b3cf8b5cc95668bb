"""Towers of KerasHub's backbones, small, and with weights that are random: their embeddings are pooled and of length 1."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import sentencepiece
import tensorflow_text as text

from tests.corpus.producers.text_towers import PIECES
from tests.witness import tf

SIZES = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 24}
ATTENTION = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
IMAGES = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8}
_LENGTH = 24
_models = keras_hub.models


def _random(backbone: Any) -> Any:
    """The backbone with other weights than it begins with, near 1 where they multiply."""
    rng = np.random.default_rng(3)
    for weight in backbone.weights:
        if weight.dtype.startswith("float"):
            scales = weight.path.endswith(("gamma", "scale"))
            weight.assign(rng.normal(float(scales), 0.15, weight.shape).astype(np.float32))
    return backbone


def _pooled(hidden: Any, mask: Any) -> Any:
    return keras.layers.UnitNormalization()(keras.layers.GlobalAveragePooling1D()(hidden, mask=mask))


def _of_ids(make: Callable[[], Any], output: str | None = None) -> Callable[[Path], None]:
    """Writes a tower that takes ids and a mask: the average of its hidden states, or `output` of the backbone."""

    def write(path: Path) -> None:
        backbone = _random(make())
        given = {name: value for name, value in backbone.input.items() if "decoder" not in name}
        results = backbone.output
        if output is None:
            hidden = results.get("sequence_output") if isinstance(results, Mapping) else results
            result = _pooled(hidden, given["padding_mask"])
        else:
            result = keras.layers.UnitNormalization()(results[output])
        keras.Model(given, result).export(str(path), verbose=False)

    return write


def _of_texts(tokenize: Callable[[tf.Module], Callable[[Any], Any]], make: Callable[[], Any]) -> Callable[[Path], None]:
    """Writes a tower that takes texts: ids with marks around them, padded with 0, and the average of the hidden states."""

    def write(path: Path) -> None:
        module = tf.Module()
        cut = tokenize(module)
        module.backbone = backbone = _random(make())

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def serve(text: Any) -> dict[str, Any]:
            ids = cut(text).to_tensor(0, shape=[None, _LENGTH])
            mask = tf.cast(ids != 0, tf.int32)
            if "encoder_token_ids" in backbone.input:
                given = {f"{part}_token_ids": ids for part in ("encoder", "decoder")}
                given |= {f"{part}_padding_mask": mask for part in ("encoder", "decoder")}
                hidden = backbone(given)["encoder_sequence_output"]
            else:
                given = {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}
                hidden = backbone({name: given[name] for name in backbone.input})
                hidden = hidden["sequence_output"] if isinstance(hidden, Mapping) else hidden
            weights = tf.cast(mask, tf.float32)[:, :, None]
            return {"y": tf.math.l2_normalize(tf.reduce_sum(hidden * weights, 1) / tf.reduce_sum(weights, 1), 1)}

        tf.saved_model.save(module, str(path), signatures={"serving_default": serve})

    return write


def _wordpiece(module: tf.Module) -> Callable[[Any], Any]:
    """TensorFlow Text's BertTokenizer between [CLS] and [SEP]."""
    numbers = tf.range(len(PIECES), dtype=tf.int64)
    table = tf.lookup.StaticVocabularyTable(tf.lookup.KeyValueTensorInitializer(PIECES, numbers), 1)
    module.tokenizer = text.BertTokenizer(table, lower_case=True)

    def cut(texts: Any) -> Any:
        ids = tf.cast(module.tokenizer.tokenize(texts).merge_dims(1, 2), tf.int32)[:, : _LENGTH - 2]
        return text.combine_segments([ids], PIECES.index("[CLS]"), PIECES.index("[SEP]"))[0]

    return cut


def _sentencepiece(module: tf.Module) -> Callable[[Any], Any]:
    """A SentencePiece model of its own, and the end of the text."""
    model = io.BytesIO()
    sentences = [" ".join(np.random.default_rng(i).choice(PIECES[4:24], 6)) for i in range(200)] + [
        "Zürich, 3.14! 日本"
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    module.tokenizer = text.SentencepieceTokenizer(model.getvalue())

    def cut(texts: Any) -> Any:
        ids = module.tokenizer.tokenize(texts)[:, : _LENGTH - 1]
        return tf.concat([ids, tf.fill([tf.shape(texts)[0], 1], 1)], 1)

    return cut


def albert(layers: int, groups: int, inner: int) -> Callable[[Path], None]:
    """Writes an ALBERT of texts: `layers` runs of `groups` groups, each of `inner` layers."""
    sizes = {**SIZES, "num_layers": layers, "num_groups": groups, "num_inner_repetitions": inner}
    make = _models.AlbertBackbone
    return _of_texts(_wordpiece, lambda: make(vocabulary_size=len(PIECES) + 1, embedding_dim=4, **sizes))


def vit(path: Path) -> None:
    """The first token of an image."""
    make = keras_hub.models.ViTBackbone(image_shape=(16, 16, 3), patch_size=8, mlp_dim=16, **IMAGES)
    backbone = _random(make)
    result = keras.layers.UnitNormalization()(backbone.output[:, 0])
    keras.Model(backbone.input, result).export(str(path), verbose=False)


def _clip() -> Any:
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

    vision = CLIPVisionEncoder(patch_size=8, intermediate_dim=16, image_shape=(16, 16, 3), **IMAGES)
    texts = CLIPTextEncoder(
        vocabulary_size=60, embedding_dim=8, max_sequence_length=_LENGTH, intermediate_dim=16, **IMAGES
    )
    texts.layer_norm.epsilon = 1e-5  # as OpenAI's; KerasHub's own is 1e-6, which transformers' config cannot say
    clip = _random(keras_hub.models.CLIPBackbone(vision, texts, projection_dim=6))
    for weight in clip.weights:
        if "position_ids" in weight.path:
            weight.assign(np.arange(weight.shape[-1]).reshape(weight.shape))
    return clip


def clip_vision(path: Path) -> None:
    clip, images = _clip(), keras.Input((16, 16, 3), name="images")
    result = keras.layers.UnitNormalization()(clip.get_vision_embeddings(images))
    keras.Model(images, result).export(str(path), verbose=False)


def clip_text(path: Path) -> None:
    clip, ids = _clip(), keras.Input((_LENGTH,), dtype="int32", name="ids")
    result = keras.layers.UnitNormalization()(clip.get_text_embeddings(ids))
    keras.Model(ids, result).export(str(path), verbose=False)


def _named(name: str, write: Callable[[Path], None]) -> Callable[[Path], None]:
    write.__name__ = name
    return write


TOWERS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "BertModel": (_of_texts(_wordpiece, lambda: _models.BertBackbone(vocabulary_size=len(PIECES) + 1, **SIZES)), True),
    "DistilBertModel": (_of_ids(lambda: _models.DistilBertBackbone(vocabulary_size=60, **SIZES)), False),
    "AlbertModel": (_of_ids(lambda: _models.AlbertBackbone(vocabulary_size=60, embedding_dim=4, **SIZES), "pooled_output"), False),
    "ElectraModel": (_of_ids(lambda: _models.ElectraBackbone(vocab_size=60, embedding_dim=4, **SIZES)), False),
    "T5EncoderModel": (_of_texts(_sentencepiece, lambda: _models.T5Backbone(vocabulary_size=60, key_value_dim=4, **ATTENTION)), True),
    "ViTModel": (vit, False),
    "CLIPVisionModelWithProjection": (clip_vision, False),
    "CLIPTextModelWithProjection": (clip_text, False),
}  # fmt: skip
"""By the class of transformers that each is: what writes it, and whether its tokenizer is one of the library's."""
for _name, (_write, _) in TOWERS.items():
    _named(_name, _write)
