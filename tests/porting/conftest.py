"""One small SavedModel with a bit of everything, for tests of the porter itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting import converters, rewrites  # noqa: F401  (fill CONVERTERS and REWRITES for what is tested by itself)
from porting.parity.process import tensorflow_installed

WORDS = ["red", "green", "blue", "größe"]
EDGES = [0.5, 18.0, 65.0]
DIM = 4


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`serving_default`: text and age to an embedding, ids, the inputs themselves, and the name of the best class.

    `strict` refuses negative numbers; `query` and `score` are functions.
    """
    from tests.witness import tf

    def table(keys: Any, values: Any, default: Any) -> Any:
        return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), default)

    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        return tf.Variable(rng.normal(size=shape).astype(np.float32), name=name)

    class People(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words = table(tf.constant(WORDS), tf.range(1, 5, dtype=tf.int64), 0)
            self.names = table(tf.range(3, dtype=tf.int64), tf.constant(["low", "mid", "high"]), "?")
            self.word, self.age = weight("word", 5, 4), weight("age", 4, 2)
            self.kernel, self.classes = weight("kernel", 6, 4), weight("classes", 4, 3)

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None], tf.float32, "age")]
        )
        def query(self, text: Any, age: Any) -> dict[str, Any]:
            ids = self.words.lookup(text)
            bucket = tf.raw_ops.Bucketize(input=age, boundaries=EDGES)
            x = tf.concat([tf.gather(self.word, ids), tf.gather(self.age, bucket)], 1)
            embedding = tf.tanh(x @ self.kernel)
            best = self.names.lookup(tf.argmax(embedding @ self.classes, 1))
            return {"embedding": embedding, "ids": ids, "best": best, "age": age, "text": text}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def strict(self, x: Any) -> Any:
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x >= 0), ["numbers below zero", x])]):
                return {"root": tf.sqrt(x)}

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None, 4], tf.float32)])
        def score(self, a: Any, b: Any) -> Any:
            return tf.reduce_sum(a * b, 1), a - b

    path = tmp_path_factory.mktemp("people") / "model"
    model = People()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.query, "strict": model.strict})
    return path


PACKAGES = Path(__file__).parents[2] / "examples" / "packages"
SIDES = ["--query", str(PACKAGES / "query_model"), "--candidate", str(PACKAGES / "candidate_model")]


@pytest.fixture(scope="session")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the example's two towers, compared with TensorFlow."""
    if not tensorflow_installed():
        pytest.skip("TensorFlow is the witness of these tests: install the extra [parity]")
    from porting.port import main

    path = tmp_path_factory.mktemp("proof") / "packages"
    assert main([*SIDES, "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One SavedModel with the signatures `query` and `candidate`, and a variable that neither uses."""
    from tests.witness import tf

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            keys, values = tf.constant(["a", "b", "c"]), tf.constant([1, 2, 3], tf.int64)
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)
            self.words = tf.Variable(np.random.default_rng(0).normal(size=(4, DIM)).astype(np.float32), name="words")
            self.kernel = tf.Variable(np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32), name="kernel")
            self.spare = tf.Variable(np.zeros(256, np.float32), name="spare")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "word")])
        def query(self, word: Any) -> dict[str, Any]:
            return {"embedding": tf.gather(self.words, self.table.lookup(word)), "id": self.table.lookup(word)}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "features")])
        def candidate(self, features: Any) -> dict[str, Any]:
            return {"embedding": tf.tanh(features @ self.kernel)}

    path = tmp_path_factory.mktemp("models") / "towers"
    model = Model()
    tf.saved_model.save(model, str(path), signatures={"query": model.query, "candidate": model.candidate})
    return path
