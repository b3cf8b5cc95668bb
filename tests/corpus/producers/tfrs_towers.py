"""TensorFlow Recommenders: towers as its tutorials build them, its retrieval indexes, and the towers of its Vertex AI example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_recommenders as tfrs
import tf_keras

from tests.corpus.producers.keras_towers import draw_weights
from tests.witness import tf

layers = tf_keras.layers
USERS = [str(number) for number in (1, 7, 42, 138, 259)]
TITLES = ["Toy Story (1995)", "GoldenEye (1995)", "Four Rooms (1995)", "Get Shorty (1995)", "Copycat (1995)"]


class ContextUser(tf_keras.Model):
    """A user with the time of the query, as in the tutorial on context features."""

    def __init__(self) -> None:
        super().__init__()
        self.user = tf_keras.Sequential(
            [layers.StringLookup(vocabulary=USERS, mask_token=None), layers.Embedding(len(USERS) + 1, 8)]
        )
        edges = np.linspace(874724710, 893286638, 20).tolist()
        self.time = tf_keras.Sequential([layers.Discretization(edges), layers.Embedding(len(edges) + 1, 8)])
        self.normalized = layers.Normalization(axis=None)
        self.normalized.adapt(np.linspace(874724710, 893286638, 50))

    def call(self, inputs: Any) -> Any:
        time = self.normalized(inputs["timestamp"])
        return tf.concat(
            [self.user(inputs["user_id"]), self.time(inputs["timestamp"]), tf.reshape(time, (-1, 1))], axis=1
        )


class Titles(tf_keras.Model):
    """A candidate by its title: an id, and the words in it."""

    def __init__(self) -> None:
        super().__init__()
        self.title = tf_keras.Sequential(
            [layers.StringLookup(vocabulary=TITLES, mask_token=None), layers.Embedding(len(TITLES) + 1, 8)]
        )
        self.words = layers.TextVectorization(max_tokens=100)
        self.words.adapt(TITLES)
        self.text = tf_keras.Sequential(
            [self.words, layers.Embedding(100, 8, mask_zero=True), layers.GlobalAveragePooling1D()]
        )

    def call(self, titles: Any) -> Any:
        return tf.concat([self.title(titles), self.text(titles)], axis=1)


class Deep(tf_keras.Model):
    """Cross layers, full and of low rank, and a stack of dense layers over a tower."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self.cross = tfrs.layers.dcn.Cross()
        self.low_rank = tfrs.layers.dcn.Cross(projection_dim=4, diag_scale=0.1)
        self.dense = tf_keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(8)])

    def call(self, inputs: Any) -> Any:
        x = self.tower(inputs)
        return self.dense(self.low_rank(x, self.cross(x)))


class User(tf_keras.Model):
    """The first tutorial's tower, which is never called in training code: StringLookup and Embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.lookup = layers.StringLookup(vocabulary=USERS, mask_token=None)
        self.embedding = layers.Embedding(len(USERS) + 1, 6)

    def call(self, users: Any) -> Any:
        return self.embedding(self.lookup(users))


def query() -> Any:
    """A built query tower."""
    model = Deep(ContextUser())
    model({"user_id": tf.constant(["42"]), "timestamp": tf.constant([879024327], tf.int64)})
    draw_weights(model)
    return model


def query_tower(path: Path) -> None:
    tf.saved_model.save(query(), str(path))


def query_tower_saved(path: Path) -> None:
    query().save(str(path))


def candidate_tower(path: Path) -> None:
    model = Deep(Titles())
    model(tf.constant(TITLES))
    draw_weights(model)
    tf.saved_model.save(model, str(path))


def _candidates(tied: bool) -> np.ndarray[Any, Any]:
    vectors = np.random.default_rng(3).normal(size=(20, 6)).astype(np.float32)
    if tied:
        vectors[[4, 9, 15]] = vectors[2]
        vectors[10:12] = 0.0
    return vectors


def _index(kind: Any, identifiers: Any, k: int = 7) -> Any:
    user = User()
    user(tf.constant(["42"]))
    draw_weights(user)
    index = kind(user, k=k)
    index.index(_candidates(tied=True), identifiers)
    index(tf.constant(["42"]))
    return index


def brute_force_strings(path: Path) -> None:
    names = np.array([f"title {i}".encode() for i in range(20)], object)
    tf.saved_model.save(_index(tfrs.layers.factorized_top_k.BruteForce, tf.constant(names)), str(path))


def brute_force_numbers(path: Path) -> None:
    index = _index(tfrs.layers.factorized_top_k.BruteForce, tf.range(100, 120, dtype=tf.int64))
    tf.saved_model.save(index, str(path))


def brute_force_without_identifiers(path: Path) -> None:
    tf.saved_model.save(_index(tfrs.layers.factorized_top_k.BruteForce, None), str(path))


def streaming(path: Path) -> None:
    """The candidates come from a tf.data pipeline in the graph."""
    user = User()
    user(tf.constant(["42"]))
    index = tfrs.layers.factorized_top_k.Streaming(user, k=3)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(20), _candidates(tied=False))).batch(5)
    index.index_from_dataset(rows)
    index(tf.constant(["42"]))
    tf.saved_model.save(index, str(path))


class Playlist(tf_keras.Model):
    """The tower of Vertex AI's example: hashed and text features, a sequence of them, a LayerNormalization last."""

    def __init__(self) -> None:
        super().__init__()
        self.artist = tf_keras.Sequential([layers.Hashing(50), layers.Embedding(51, 8)])
        self.genre = tf_keras.Sequential(
            [layers.Hashing(30, mask_value=""), layers.Embedding(31, 8), layers.GlobalAveragePooling1D()]
        )
        words = layers.TextVectorization(ngrams=2, vocabulary=["the", "blue", "sky", "blue sky", "the blue"])
        self.name_words = tf_keras.Sequential(
            [words, layers.Embedding(words.vocabulary_size(), 8, mask_zero=False), layers.GlobalAveragePooling1D()]
        )
        self.duration = tf_keras.Sequential(
            [layers.Discretization(np.linspace(0, 5e5, 20).tolist()), layers.Embedding(21, 8)]
        )
        self.dots = tfrs.layers.feature_interaction.DotInteraction()
        self.cross = tfrs.layers.dcn.Cross(projection_dim=5)
        self.dense = tf_keras.Sequential(
            [layers.Dense(16, activation="relu"), layers.Dropout(0.2), layers.Dense(8), layers.LayerNormalization()]
        )

    def call(self, inputs: Any) -> Any:
        parts = [
            self.artist(inputs["artist"]),
            self.genre(inputs["genres"]),
            self.name_words(inputs["name"]),
            self.duration(inputs["duration"]),
        ]
        return self.dense(self.cross(tf.concat([*parts, self.dots(parts)], axis=1)))


def vertex_tower(path: Path) -> None:
    model = Playlist()
    spec = {
        "artist": tf.constant(["x"]), "genres": tf.constant([["a", "b", "", "c", "d"]]), "name": tf.constant(["The blue sky"]),
        "duration": tf.constant([2.5e5]),
    }  # fmt: skip
    model(spec)
    draw_weights(model)
    tf.saved_model.save(model, str(path))


class Ranking(tfrs.Model):
    """Several outputs: both embeddings, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.movie = User(), Titles()
        self.rating = tf_keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(1)])
        self.watched = layers.Dense(1, activation="sigmoid")

    def call(self, features: Any) -> Any:
        user, movie = self.user(features["user_id"]), self.movie(features["movie_title"])
        rating = self.rating(tf.concat([user, movie], axis=1))
        return {"user": user, "movie": movie, "rating": rating, "watched": self.watched(tf.concat([user, movie], 1))}


def ranking(path: Path) -> None:
    model = Ranking()
    model({"user_id": tf.constant(["42"]), "movie_title": tf.constant(TITLES[:1])})
    draw_weights(model)
    tf.saved_model.save(model, str(path))


def two_signatures(path: Path) -> None:
    """Both towers in one SavedModel."""
    model = Ranking()
    model({"user_id": tf.constant(["42"]), "movie_title": tf.constant(TITLES[:1])})
    draw_weights(model)
    users = tf.function(
        lambda user_id: {"embedding": model.user(user_id)},
        input_signature=[tf.TensorSpec([None], tf.string, "user_id")],
    )
    movies = tf.function(
        lambda title: {"embedding": tf.math.l2_normalize(model.movie(title), axis=-1)},
        input_signature=[tf.TensorSpec([None], tf.string, "title")],
    )  # fmt: skip
    tf.saved_model.save(model, str(path), signatures={"user_tower": users, "movie_tower": movies})
