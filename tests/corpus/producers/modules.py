"""Plain TensorFlow: tf.Module with tf.function, towers on tf.Example, on images, and Merlin's ragged features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.witness import tf

RNG = np.random.default_rng(5)


def weight(name: str, *shape: int, trainable: bool = True) -> Any:
    return tf.Variable(RNG.normal(0, 0.4, shape).astype(np.float32), name=name, trainable=trainable)


class Tower(tf.Module):
    """Two layers over numbers and an id; a frozen table."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.table = weight("table", 10, 4, trainable=False)
        self.kernel, self.bias = weight("kernel", 7, 5), weight("bias", 5)
        self.scale = tf.Variable(1.5, name="scale")

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([None], tf.int64, "item")])
    def __call__(self, x: Any, item: Any) -> Any:
        joined = tf.concat([x, tf.gather(self.table, item)], -1)
        return tf.nn.l2_normalize(tf.nn.relu(tf.matmul(joined, self.kernel) + self.bias) * self.scale + x[:, :1], -1)


class Words(tf.Module):
    """A table of words from a file, with hash buckets for OOV."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="words")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "vocabulary.txt"
        file.write_bytes("red\ngreen\n blue \nüber\n".encode())
        initializer = tf.lookup.TextFileInitializer(
            str(file), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticVocabularyTable(initializer, 3)
        self.embedding = weight("embedding", 7, 6)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def encode(self, text: Any) -> Any:
        words = tf.strings.split(tf.strings.regex_replace(tf.strings.lower(text), "[,.!]", ""))
        ids = self.table.lookup(words.flat_values)
        rows = tf.nn.safe_embedding_lookup_sparse(self.embedding, words.with_values(ids).to_sparse(), combiner="sqrtn")
        return {"embedding": rows, "count": words.row_lengths()}


class Model(tf.Module):
    """Towers under dotted paths, and no signature of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="model")
        self.query_model, self.words = Tower("query"), Words(folder)

    @tf.function
    def score(self, a: Any, b: Any) -> Any:
        return tf.linalg.matmul(a, b, transpose_b=True)


def module(path: Path) -> None:
    """No signatures: `query_model.__call__`, `words.encode`, and `score` in two traces."""
    model = Model(path.parent / "files")
    for dtype in (tf.float32, tf.float64):
        spec = tf.TensorSpec([None, 4], dtype)
        model.score.get_concrete_function(spec, spec)
    tf.saved_model.save(model, str(path))


def root_call(path: Path) -> None:
    """A root `__call__` and no signature, as TensorFlow Hub's modules."""
    tower = Tower("hub")
    tf.saved_model.save(tower, str(path))


class Merlin(tf.Module):
    """Lists of ids as values and offsets, pooled by each combiner; some rows are empty, some ids unknown (negative)."""

    def __init__(self) -> None:
        super().__init__(name="merlin")
        self.tables = {combiner: weight(f"{combiner}_table", 30, 4) for combiner in ("mean", "sum", "sqrtn")}
        self.kernel, self.bias = weight("kernel", 13, 6), weight("bias", 6)

    @tf.function(input_signature=[{
        "genres__values": tf.TensorSpec([None], tf.int64, "genres__values"),
        "genres__offsets": tf.TensorSpec([None], tf.int64, "genres__offsets"),
        "age": tf.TensorSpec([None, 1], tf.float32, "age"),
    }])  # fmt: skip
    def serve(self, inputs: Any) -> Any:
        genres = tf.RaggedTensor.from_row_splits(
            inputs["genres__values"], inputs["genres__offsets"], validate=False
        ).to_sparse()
        parts = [
            tf.nn.safe_embedding_lookup_sparse(table, genres, combiner=combiner)
            for combiner, table in self.tables.items()
        ]
        hidden = tf.nn.relu(tf.matmul(tf.concat([*parts, inputs["age"]], 1), self.kernel) + self.bias)
        return {"output_1": tf.math.l2_normalize(hidden, axis=-1, epsilon=1e-12)}


def merlin(path: Path) -> None:
    made = Merlin()
    tf.saved_model.save(made, str(path), signatures={"serving_default": made.serve})


class Examples(tf.Module):
    """Serialized tf.Examples in: fixed, variable and ragged features with defaults."""

    def __init__(self) -> None:
        super().__init__(name="examples")
        keys = tf.constant(["a", "b", "c"])
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1, 2, 3], tf.int64)), 0
        )
        self.embedding, self.kernel = weight("embedding", 4, 5), weight("kernel", 8, 5)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def serve(self, examples: Any) -> Any:
        parsed = tf.io.parse_example(examples, {
            "price": tf.io.FixedLenFeature([2], tf.float32, [1.0, 2.0]),
            "count": tf.io.FixedLenFeature([], tf.int64, 7),
            "tags": tf.io.VarLenFeature(tf.string),
            "codes": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
        })  # fmt: skip
        tags = tf.sparse.SparseTensor(
            parsed["tags"].indices, self.table.lookup(parsed["tags"].values), parsed["tags"].dense_shape
        )
        pooled = tf.nn.safe_embedding_lookup_sparse(self.embedding, tags, combiner="mean")
        total = tf.cast(tf.reduce_sum(parsed["codes"], axis=1), tf.float32)[:, None]
        numbers = tf.concat([parsed["price"], tf.math.tanh(total / 1e3), pooled], 1)
        return {
            "embedding": tf.matmul(numbers, self.kernel),
            "count": parsed["count"],
            "codes": parsed["codes"].to_tensor(-1),
        }


def examples(path: Path) -> None:
    made = Examples()
    tf.saved_model.save(made, str(path), signatures={"serving_default": made.serve})


class Images(tf.Module):
    """A serving signature that takes JPEG bytes."""

    def __init__(self) -> None:
        super().__init__(name="images")
        self.kernel, self.projection = weight("kernel", 3, 3, 3, 6), weight("projection", 6, 4)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "bytes")])
    def serve(self, images: Any) -> Any:
        def one(image: Any) -> Any:
            pixels = tf.io.decode_jpeg(image, channels=3)
            return tf.image.resize(tf.image.convert_image_dtype(pixels, tf.float32), [16, 16])

        pixels = tf.map_fn(one, images, fn_output_signature=tf.TensorSpec([16, 16, 3], tf.float32))
        hidden = tf.nn.relu(tf.nn.conv2d(pixels, self.kernel, 2, "SAME"))
        return {"embedding": tf.matmul(tf.reduce_mean(hidden, [1, 2]), self.projection), "pixels": pixels}


def images(path: Path) -> None:
    made = Images()
    tf.saved_model.save(made, str(path), signatures={"serving_default": made.serve})


def jpegs(count: int) -> np.ndarray[Any, Any]:
    """Photographs of noise and gradients, in color and gray, of several sizes."""
    rng = np.random.default_rng(9)
    found = np.empty(count, object)
    for i in range(count):
        height, width = int(rng.integers(5, 40)), int(rng.integers(5, 40))
        ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
        pixels = np.clip(ramp + rng.normal(0, 40, ramp.shape), 0, 255).astype(np.uint8)
        found[i] = tf.io.encode_jpeg(pixels if i % 3 else pixels[..., :1], quality=60 + 5 * i).numpy()
    return found


def ragged_rows(path: Path) -> None:
    """A history as TensorFlow flattens a RaggedTensor: "history" its values, "history_1" the row splits."""
    model = tf.Module()
    model.items = weight("items", 30, 4)

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int64), tf.TensorSpec([None], tf.int64, "user")])
    def serve(history: Any, user: Any) -> Any:
        rows = tf.gather(model.items, history)
        mean = tf.math.divide_no_nan(tf.reduce_sum(rows, 1), tf.cast(history.row_lengths(), tf.float32)[:, None])
        return {"embedding": tf.concat([mean, tf.gather(model.items, user)], -1)}

    tf.saved_model.save(model, str(path), signatures=serve.get_concrete_function())


def sparse_rows(path: Path) -> None:
    """A sparse matrix as three inputs, and what it multiplies."""
    model = tf.Module()
    model.kernel = weight("kernel", 9, 5)
    specs = [tf.TensorSpec([None, 2], tf.int64, "where"), tf.TensorSpec([None], tf.float32, "weights"), tf.TensorSpec([2], tf.int64, "size")]  # fmt: skip

    @tf.function(input_signature=specs)
    def serve(where: Any, weights: Any, size: Any) -> Any:
        sparse = tf.SparseTensor(where, tf.math.log1p(tf.abs(weights)), tf.stack([size[0], 9]))
        return {"embedding": tf.nn.elu(tf.sparse.sparse_dense_matmul(sparse, model.kernel))}

    tf.saved_model.save(model, str(path), signatures=serve.get_concrete_function())


def sounds(path: Path) -> None:
    """A spectrogram on the mel scale under a convolution, in which most values are near zero."""
    model = tf.Module()
    model.kernel = weight("kernel", 3, 3, 1, 4)
    mel = tf.signal.linear_to_mel_weight_matrix(12, 65, 8000)

    @tf.function(input_signature=[tf.TensorSpec([None, 800], tf.float32, "sound")])
    def serve(sound: Any) -> Any:
        loudness = tf.math.log(tf.matmul(tf.abs(tf.signal.stft(sound, 128, 64)), mel) + 1e-6)
        return {
            "embedding": tf.reduce_mean(tf.nn.relu6(tf.nn.conv2d(loudness[..., None], model.kernel, 2, "SAME")), [1, 2])
        }

    tf.saved_model.save(model, str(path), signatures=serve.get_concrete_function())
