"""Writes the measured towers with TensorFlow: `python -m benchmarks.towers FOLDER` writes the missing ones.

Runs in a separate process: it imports TensorFlow, and tf_keras as `tf.keras` for TensorFlow Recommenders.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks import data

os.environ["TF_USE_LEGACY_KERAS"] = "1"


def save_id_tower(path: Path) -> None:
    """StringLookup and Embedding, as in TensorFlow Recommenders' tutorials."""
    import tensorflow as tf

    tf.saved_model.save(_id_model(), str(path))


def _id_model() -> Any:
    import tensorflow as tf

    layers = tf.keras.layers
    lookup = layers.StringLookup(vocabulary=[f"user-{i}" for i in range(data.USERS)], mask_token=None)
    model = tf.keras.Sequential(
        [layers.Input((), dtype=tf.string, name="user_id"), lookup, layers.Embedding(data.USERS + 1, 64)]
    )
    model(tf.constant(["user-1"]))
    return model


def save_brute_force(path: Path) -> None:
    """TensorFlow Recommenders' exact index over 100,000 candidates, with the query tower inside."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    index = tfrs.layers.factorized_top_k.BruteForce(_id_model(), k=10)
    vectors = tf.random.stateless_normal([data.ITEMS, data.DIM], seed=(1, 2))
    index.index(vectors, tf.constant([f"item-{i}" for i in range(data.ITEMS)]))
    index(tf.constant(["user-1"]))

    def signature(user_id: Any) -> dict[str, Any]:
        scores, ids = index(user_id)
        return {"scores": scores, "ids": ids}

    specs = [tf.TensorSpec([None], tf.string, "user_id")]
    tf.saved_model.save(index, str(path), signatures={"serving_default": tf.function(signature, input_signature=specs)})


def _feature_model() -> Any:
    """Ids, hashing, buckets, numbers and short text, in Keras 3."""
    import keras
    import numpy as np

    layers = keras.layers
    text = layers.TextVectorization(max_tokens=5000, output_sequence_length=8)
    text.adapt(data.features(5000)["title"])
    normal = layers.Normalization(axis=None)
    normal.adapt(np.array(data.features(5000)["price"], np.float32))
    inputs = {
        name: keras.Input((), dtype="float32" if name in ("age", "price") else "string", name=name)
        for name in ("user_id", "device", "city", "age", "price", "title")
    }
    lookup = layers.StringLookup(vocabulary=[f"user-{i}" for i in range(data.USERS)])
    ages = layers.Discretization(bin_boundaries=[18.0, 25.0, 35.0, 45.0, 55.0, 65.0])
    parts = [
        layers.Embedding(data.USERS + 1, 32)(lookup(inputs["user_id"])),
        layers.Embedding(10_000, 16)(layers.Hashing(10_000)(inputs["device"])),
        layers.Embedding(len(data.CITIES) + 1, 8)(layers.StringLookup(vocabulary=data.CITIES)(inputs["city"])),
        layers.Embedding(7, 4)(ages(inputs["age"])),
        layers.Reshape((1,))(normal(inputs["price"])),
        layers.GlobalAveragePooling1D()(layers.Embedding(5000, 32, mask_zero=True)(text(inputs["title"]))),
    ]
    hidden = layers.Dense(128, activation="relu")(layers.Concatenate()(parts))
    return keras.Model(inputs, layers.Dense(64)(hidden))


def save_feature_tower(path: Path) -> None:
    """Ids, hashing, buckets, numbers and short text, in Keras 3."""
    import tensorflow as tf

    model = _feature_model()
    names = {name: "float32" if name in ("age", "price") else "string" for name in data.features(1)}
    specs = [{name: tf.TensorSpec([None], dtype, name) for name, dtype in names.items()}]
    _save(model, lambda columns: {"embedding": model(columns)}, specs, path)


def save_example_tower(path: Path) -> None:
    """The same features, from serialized tf.Example messages."""
    import tensorflow as tf

    model = _feature_model()
    kinds = {name: "float32" if name in ("age", "price") else "string" for name in data.features(1)}
    wanted = {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}
    specs = [tf.TensorSpec([None], tf.string, "examples")]
    _save(model, lambda examples: {"embedding": model(tf.io.parse_example(examples, wanted))}, specs, path)


def save_sentencepiece_tower(path: Path) -> None:
    """SentencePiece, averaged embeddings, two dense layers."""
    import sentencepiece
    import tensorflow as tf
    import tensorflow_text

    trained = BytesIO()
    texts = iter([row["description"] for row in data.packages()])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts, model_writer=trained, vocab_size=4000, minloglevel=2
    )
    tokenizer = tensorflow_text.SentencepieceTokenizer(model=trained.getvalue())
    module = tf.keras.Sequential([
        tf.keras.layers.Embedding(4001, 64, mask_zero=True), tf.keras.layers.GlobalAveragePooling1D(),
        tf.keras.layers.Dense(128, activation="relu"), tf.keras.layers.Dense(64),
    ])  # fmt: skip
    module.tokenizer = tokenizer

    def serve(text: Any) -> dict[str, Any]:
        ids = (tokenizer.tokenize(text) + 1).to_tensor(shape=[None, 48])
        return {"embedding": module(ids)}

    serve(tf.constant(["a text"]))
    _save(module, serve, [tf.TensorSpec([None], tf.string, "text")], path)


def save_mlp(path: Path) -> None:
    """A hundred floats and three dense layers."""
    import keras
    import tensorflow as tf

    layers = [
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64),
    ]
    model = keras.Sequential([keras.Input((100,)), *layers])
    _save(model, lambda x: {"embedding": model(x)}, [tf.TensorSpec([None, 100], tf.float32, "x")], path)


def save_bert(path: Path, *, blocks: int, dim: int, length: int) -> None:
    """WordPiece, a BERT in Keras 3 padded to `length`, the mean of the tokens."""
    import tensorflow as tf
    import tensorflow_text

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_pieces()]
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.KeyValueTensorInitializer(vocabulary, tf.range(len(vocabulary), dtype=tf.int64)), 1
    )
    tokenizer = tensorflow_text.BertTokenizer(table, lower_case=True)
    model = _bert(blocks, dim, length, len(vocabulary) + 1)
    model.tokenizer, model.table = tokenizer, table

    def serve(text: Any) -> dict[str, Any]:
        ids = tokenizer.tokenize(text).merge_dims(-2, -1)
        ids, _ = tensorflow_text.combine_segments([ids[:, : length - 2]], start_of_sequence_id=2, end_of_segment_id=3)
        ids, mask = tensorflow_text.pad_model_inputs(ids, length)
        return {"embedding": model([ids, mask])}

    serve(tf.constant(["a text"]))
    _save(model, serve, [tf.TensorSpec([None], tf.string, "text")], path)


def _pieces() -> list[str]:
    """The words of the demo's descriptions, letters, and suffixes."""
    words = sorted({word.lower() for row in data.packages() for word in row["description"].split() if word.isalpha()})
    letters = [chr(c) for c in (*range(33, 65), *range(97, 123))]
    return list(dict.fromkeys([*letters, *(f"##{letter}" for letter in letters), *words]))


def _bert(blocks: int, dim: int, length: int, vocabulary: int) -> Any:
    """`ids [n, length], mask [n, length] -> [n, dim]`."""
    import keras

    layers = keras.layers
    ids, mask = keras.Input((length,), dtype="int64", name="ids"), keras.Input((length,), dtype="int64", name="mask")
    places = layers.Embedding(length, dim, name="positions")(keras.ops.arange(length))
    x = layers.Embedding(vocabulary, dim, name="tokens")(ids) + places
    x = layers.LayerNormalization(epsilon=1e-12)(x)
    seen = keras.ops.expand_dims(mask, 1)
    for _ in range(blocks):
        found = layers.MultiHeadAttention(dim // 64, 64)(x, x, attention_mask=seen)
        x = layers.LayerNormalization(epsilon=1e-12)(x + found)
        found = layers.Dense(dim)(layers.Dense(4 * dim, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-12)(x + found)
    pooled = layers.GlobalAveragePooling1D()(x, mask=keras.ops.cast(mask, "bool"))
    return keras.Model([ids, mask], layers.Dense(64)(pooled))


def save_bigru(path: Path) -> None:
    """TextVectorization of 32 words and a masked bidirectional GRU of 64, in Keras 3."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    text = layers.TextVectorization(max_tokens=10_000, output_sequence_length=32)
    text.adapt([row["description"] for row in data.packages()])
    inputs = keras.Input((), dtype="string", name="text")
    rows = layers.Embedding(10_000, 64, mask_zero=True)(text(inputs))
    model = keras.Model(inputs, layers.Dense(64)(layers.Bidirectional(layers.GRU(64))(rows)))
    _save(model, lambda text: {"embedding": model(text)}, [tf.TensorSpec([None], tf.string, "text")], path)


def save_history(path: Path) -> None:
    """A history of 50 items through a GRU of 64 and attention over its steps, and two features, in Keras 3."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    items = keras.Input((data.HISTORY,), dtype="int64", name="items")
    age, city = keras.Input((), name="age"), keras.Input((), dtype="string", name="city")
    steps = layers.GRU(64, return_sequences=True)(layers.Embedding(data.ITEMS, 64, mask_zero=True)(items))
    steps = layers.MultiHeadAttention(2, 32)(steps, steps)
    parts = [
        layers.GlobalAveragePooling1D()(steps),
        layers.Embedding(len(data.CITIES) + 1, 8)(layers.StringLookup(vocabulary=data.CITIES)(city)),
        layers.Embedding(7, 4)(layers.Discretization(bin_boundaries=[18.0, 25.0, 35.0, 45.0, 55.0, 65.0])(age)),
    ]
    model = keras.Model({"items": items, "age": age, "city": city}, layers.Dense(64)(layers.Concatenate()(parts)))
    specs = {
        "items": tf.TensorSpec([None, data.HISTORY], tf.int64, "items"),
        "age": tf.TensorSpec([None], tf.float32, "age"),
        "city": tf.TensorSpec([None], tf.string, "city"),
    }
    _save(model, lambda columns: {"embedding": model(columns)}, [specs], path)


def save_images(path: Path, *, kind: str) -> None:
    """A network of keras.applications, untrained, over small images."""
    import keras
    import tensorflow as tf

    make = getattr(keras.applications, kind)
    model = make(weights=None, include_top=False, pooling="avg", input_shape=data.IMAGE)
    _save(
        model,
        lambda image: {"embedding": model(image)},
        [tf.TensorSpec([None, *data.IMAGE], tf.float32, "image")],
        path,
    )


def save_vit(path: Path) -> None:
    """A small vision transformer of KerasHub over the same images, pooled by its first token."""
    import keras_hub
    import tensorflow as tf

    sizes = {"num_layers": 4, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    model = keras_hub.models.ViTBackbone(image_shape=data.IMAGE, patch_size=4, dropout_rate=0.0, **sizes)

    def serve(image: Any) -> dict[str, Any]:
        return {"embedding": model(image)[:, 0]}

    _save(model, serve, [tf.TensorSpec([None, *data.IMAGE], tf.float32, "image")], path)


def _save(model: Any, serve: Callable[..., Any], specs: list[Any], path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.model = model
    tf.saved_model.save(module, str(path), signatures={"serving_default": tf.function(serve, input_signature=specs)})


PRODUCERS: dict[str, Callable[[Path], None]] = {
    "tfrs ids": save_id_tower,
    "features": save_feature_tower,
    "sentencepiece": save_sentencepiece_tower,
    "serialized examples": save_example_tower,
    "brute force": save_brute_force,
    "mlp": save_mlp,
    "bert 4x256": partial(save_bert, blocks=4, dim=256, length=64),
    "bert 2x128": partial(save_bert, blocks=2, dim=128, length=128),
    "bigru": save_bigru,
    "history": save_history,
    "mobilenet v2": partial(save_images, kind="MobileNetV2"),
    "efficientnet b0": partial(save_images, kind="EfficientNetB0"),
    "resnet50": partial(save_images, kind="ResNet50"),
    "vit": save_vit,
}
"""Towers made here; the demo's two are in examples/."""


def saved_model(folder: Path, tower: str) -> Path:
    """The path of a tower's SavedModel."""
    if tower.startswith("packages "):
        return data.ROOT / "examples" / "packages" / f"{tower.removeprefix('packages ')}_model"
    return folder / tower.replace(" ", "_")


def main(folder: Path) -> None:
    for tower, produce in PRODUCERS.items():
        path = saved_model(folder, tower)
        if not (path / "saved_model.pb").exists():
            print(f"saving {tower}", flush=True)
            produce(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
