"""Which inputs are columns of one batch, and what `encode` returns for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_towers
from porting import port
from porting.saved_model import read
from porting.tower import port_tower
from tests.witness import tf
from torch_towers.errors import InputError
from torch_towers.tower import Tower

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(50, 4)).astype(np.float32)
INT, FLOAT, TEXT = tf.int64, tf.float32, tf.string


def saved(folder: Path, serve: Callable[..., Any], **inputs: Any) -> Any:
    model = tf.Module()
    model.table = tf.Variable(TABLE)
    specs = {name: tf.TensorSpec([None, *shape], dtype, name) for name, (dtype, *shape) in inputs.items()}
    call = tf.function(lambda **given: serve(model, *(given[name] for name in inputs)))
    tf.saved_model.save(model, str(folder), signatures=call.get_concrete_function(**specs))
    return tf.saved_model.load(str(folder)).signatures["serving_default"]


def flat(model: Any, ids: Any, starts: Any) -> Any:
    """The flat values of a ragged tensor and its row splits."""
    ragged = tf.RaggedTensor.from_row_splits(ids, starts, validate=False)
    return {"y": tf.reduce_sum(tf.gather(model.table, ragged), 1)}


def test_flat_values_have_rows_of_their_own(tmp_path: Path) -> None:
    answer = saved(tmp_path / "m", flat, ids=(INT,), starts=(INT,))
    ids, starts = RNG.integers(0, 50, 20), np.array([0, 3, 3, 9, 14, 20])
    np.savez(tmp_path / "inputs.npz", ids=ids, starts=starts)
    arguments = ["--query", str(tmp_path / "m"), "-o", str(tmp_path / "out"), "--inputs", str(tmp_path / "inputs.npz")]
    assert port.main(arguments) == 0
    towers = torch_towers.load(tmp_path / "out")
    assert towers.query is not None and [spec.shape for spec in towers.query.inputs] == [
        ("ids_rows",),
        ("starts_rows",),
    ]
    expected = answer(ids=tf.constant(ids), starts=tf.constant(starts))["y"].numpy()
    for size in (3, 1024):  # dependent rows are never split into batches
        found = towers.encode_query({"ids": ids, "starts": starts}, batch_size=size).numpy()
        assert np.allclose(found, expected, rtol=1e-6, atol=1e-6)  # sums of at most 6 float32


def joined(model: Any, ids: Any, weights: Any, text: Any) -> Any:
    """Text that loses its rows in a ragged tensor, an id and a weight of each row."""
    words = tf.strings.to_hash_bucket_fast(tf.strings.split(text), 50)
    mean = tf.reduce_mean(tf.gather(model.table, words), 1)
    return {"y": tf.concat([tf.gather(model.table, ids) * weights[:, None], mean], 1)}


def test_columns_of_one_batch_need_the_same_number(tmp_path: Path) -> None:
    """Found by dataflow, or by running the tower; a short column raises an error that names it."""
    answer = saved(tmp_path / "m", joined, ids=(INT,), weights=(FLOAT,), text=(TEXT,))
    tower = port_tower(read(tmp_path / "m")).tower()
    assert [spec.shape for spec in tower.inputs] == [("batch",)] * 3
    rows = {
        "ids": RNG.integers(0, 50, 7),
        "weights": RNG.normal(size=7).astype(np.float32),
        "text": ["a b", "c"] * 3 + ["d"],
    }
    expected = answer(**{name: tf.constant(column) for name, column in rows.items()})["y"].numpy()
    assert np.allclose(tower.encode(rows, batch_size=2).numpy(), expected, rtol=1e-6, atol=1e-6)
    for name in rows:
        with pytest.raises(InputError, match=f"feature '{name}' has 6 rows|'{name}' has 6: all need the same number"):
            tower.encode({**rows, name: rows[name][:-1]})


def beside(model: Any, key: Any, text: Any) -> Any:
    """A key that is passed through, independent of the text."""
    return {"key": key, "y": tf.gather(model.table, tf.strings.to_hash_bucket_fast(text, 50))}


def test_what_never_meets_is_free_and_encode_still_cuts(tmp_path: Path) -> None:
    answer = saved(tmp_path / "m", beside, key=(INT,), text=(TEXT,))
    tower = port_tower(read(tmp_path / "m")).tower()
    texts = [f"text {i}" for i in range(9)]
    expected = answer(key=tf.constant([1, 2], INT), text=tf.constant(texts))
    found = tower({"key": [1, 2], "text": texts})
    assert np.array_equal(found["y"].detach().numpy(), expected["y"].numpy())
    assert np.array_equal(found["key"].numpy(), expected["key"].numpy())
    seen = _rows_seen(tower)
    assert np.array_equal(tower.encode({"key": [1, 2], "text": texts}, batch_size=4).numpy(), expected["y"].numpy())
    assert max(seen) <= 4
    rows = [{"key": i, "text": text} for i, text in enumerate(texts)]
    assert np.array_equal(tower.encode(rows).numpy(), expected["y"].numpy())


def _rows_seen(tower: Tower) -> list[int]:
    seen: list[int] = []
    tower.encoder.register_forward_hook(lambda module, args, result: seen.append(len(result["y"])))
    return seen


OUTPUTS: dict[str, Callable[[Any], Any]] = {
    "rank 1": lambda x: tf.reduce_sum(x, 1),
    "rank 3": lambda x: x[:, :, None] * x[:, None, :],
    "integers": lambda x: tf.argmax(x, 1),
    "booleans": lambda x: x > 0.0,
    "strings": lambda x: "best " + tf.as_string(tf.argmax(x, 1)),
    "a scalar": lambda x: tf.reduce_sum(tf.abs(x)),
    "half": lambda x: tf.cast(x, tf.float16),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_encode_gives_the_only_output(tmp_path: Path, kind: str) -> None:
    answer = saved(tmp_path / "m", lambda model, x: {"y": OUTPUTS[kind](x)}, x=(FLOAT, 3))
    tower = port_tower(read(tmp_path / "m")).tower()
    for rows in (1, 7):
        x = RNG.normal(size=(rows, 3)).astype(np.float32)
        expected = answer(x=tf.constant(x))["y"].numpy()
        found = tower.encode(x, batch_size=3, convert_to_numpy=True)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        same = np.allclose(found, expected, rtol=1e-6) if found.dtype.kind == "f" else np.array_equal(found, expected)
        assert same  # sums of at most 21 float32
