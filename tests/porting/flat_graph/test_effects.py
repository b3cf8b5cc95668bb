"""Side effects of an entry: dropped if no output observes them, refused if one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from porting.parity.comparison import verify_with_tensorflow
from porting.parity.oracle import Oracle
from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.witness import tf

keras: Any = pytest.importorskip(
    "keras", reason="Keras 3 writes the seeds that are dropped; install the extra [parity]"
)
ROWS = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)


class Model(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable([1.0, 2.0, 3.0], name="weight")
        self.count = tf.Variable(0.0, name="count")
        self.words = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        self.words.insert(["a"], [1])


def saved(folder: Path, serve: Callable[[Any, Any], dict[str, Any]], *, text: bool = False) -> Any:
    model = Model()
    spec = tf.TensorSpec([None], tf.string, "x") if text else tf.TensorSpec([None, 3], tf.float32, "x")
    model.serve = tf.function(lambda x: serve(model, x), input_signature=[spec])
    tf.saved_model.save(model, str(folder), signatures=model.serve)
    return read(folder)


def counted(model: Any, x: Any) -> dict[str, Any]:
    """A counter, a moving average and a print: no output reads what they change."""
    model.count.assign_add(1.0)
    tf.print("served", x, output_stream="file:///dev/null")
    if tf.reduce_sum(x) > 0:
        model.count.assign(0.0)
    return {"y": x * model.weight}


def test_what_no_output_reads_is_dropped_and_said(tmp_path: Path, oracle: Oracle) -> None:
    ported = port_tower(saved(tmp_path, counted))
    notes = "\n".join(ported.notes)
    assert "left out AssignAddVariableOp" in notes and "no output reads what it changes" in notes
    assert "left out PrintV2" in notes
    assert verify_with_tensorflow(ported, oracle).passed


def writes(model: Any, x: Any) -> dict[str, Any]:
    model.weight.scatter_update(tf.IndexedSlices(tf.constant([5.0]), tf.constant([0])))
    return {"y": x * model.weight}


def writes_later(model: Any, x: Any) -> dict[str, Any]:
    """The next call reads it."""
    y = x * model.weight
    model.weight.assign_add([1.0, 1.0, 1.0])
    return {"y": y}


def writes_in_a_branch(model: Any, x: Any) -> dict[str, Any]:
    if tf.reduce_sum(x) > 0:
        model.weight.assign([1.0, 1.0, 1.0])
    return {"y": x * model.weight}


def writes_through(model: Any, x: Any) -> dict[str, Any]:
    """A count that is itself an output."""
    return {"y": x, "n": model.count.assign_add(1.0)}


@pytest.mark.parametrize("serve", [writes, writes_later, writes_in_a_branch, writes_through])
def test_what_an_output_reads_is_refused(tmp_path: Path, serve: Any) -> None:
    with pytest.raises(PortingError, match=r"changes what the model holds \((Resource|Assign)\w+ .*choose another"):
        port_tower(saved(tmp_path, serve))


def test_a_table_that_grows_is_refused(tmp_path: Path) -> None:
    """`LookupTableInsertV2` is connected to the lookup only by a control input."""

    def serve(model: Any, x: Any) -> dict[str, Any]:
        model.words.insert(["b"], [2])
        return {"y": model.words.lookup(x)}

    with pytest.raises(PortingError, match=r"changes what the model holds.*LookupTableInsertV2"):
        port_tower(saved(tmp_path, serve, text=True))


def test_reference_variables_of_tf1(tmp_path: Path) -> None:
    """`Assign`, `ScatterUpdate`, ... take the variable itself."""
    from tests.porting.test_tf1 import check, save, v1

    def build(read_it: bool) -> Any:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        w = v1.get_variable("w", initializer=tf.constant([1.0, 2.0, 3.0]))
        n = v1.get_variable("n", initializer=tf.constant([0.0, 0.0]))
        with tf.control_dependencies([v1.scatter_update(w if read_it else n, [0], [5.0])]):
            return {"x": x}, {"y": tf.identity(x) * w}

    answer = save(tmp_path / "dead", lambda: build(False))
    ported = check(tmp_path / "dead", answer, {"x": ROWS})
    assert ported.notes and "ScatterUpdate" in ported.notes[0]
    save(tmp_path / "read", lambda: build(True))
    with pytest.raises(PortingError, match=r"changes what the model holds.*ScatterUpdate"):
        port_tower(read(tmp_path / "read"))


def exported(folder: Path, model: Any) -> PortedTower:
    model.export(str(folder), verbose=False)
    return port_tower(read(folder))


def test_the_seeds_of_keras_3_are_dropped(tmp_path: Path, oracle: Oracle) -> None:
    """Recurrent dropout splits its seed at every call, in inference too; nothing is drawn from it."""
    layers = keras.layers
    cells = [
        layers.GRU(4, recurrent_dropout=0.3, dropout=0.2, return_sequences=True),
        layers.LSTM(4, recurrent_dropout=0.3),
    ]
    ported = exported(tmp_path, keras.Sequential([keras.Input((5, 3)), *cells, layers.Dense(3)]))
    assert any("AssignVariableOp" in note for note in ported.notes), ported.notes
    report = verify_with_tensorflow(ported, oracle)
    assert report.passed, report.lines()


def test_random_layers_in_inference(tmp_path: Path, oracle: Oracle) -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.RandomRotation(0.1)(image, training=False)
    x = keras.layers.RandomContrast(0.2)(x, training=False)
    x = keras.layers.GaussianNoise(0.1)(x)
    ported = exported(tmp_path, keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x))))
    assert verify_with_tensorflow(ported, oracle).passed


def test_a_static_table_is_filled_once(tmp_path: Path, oracle: Oracle) -> None:
    """An entry that fills its table again, as an old `tf.lookup.StaticHashTable` made inside the call does, changes nothing."""
    model = tf.Module()
    keys, values = tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)
    model.words = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "x")])
    def serve(x: Any) -> Any:
        tf.raw_ops.LookupTableImportV2(table_handle=model.words.resource_handle, keys=keys, values=values)
        return {"y": model.words.lookup(x)}

    model.serve = serve
    tf.saved_model.save(model, str(tmp_path), signatures=serve)
    port = port_tower(read(tmp_path))
    assert any("LookupTableImportV2" in note and "filled already" in note for note in port.notes)
    report = verify_with_tensorflow(port, oracle)
    assert report.passed, "\n".join(report.lines())
