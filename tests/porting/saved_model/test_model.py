"""Whole SavedModels of every producer: variables, tables, signatures and restored functions are those that TensorFlow loads."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import SavedModel, read
from tests.porting.saved_model.conftest import mutate
from torch_towers.graph.graph import Graph, TensorSpec, node_of, references


def bits(value: Any) -> Any:
    """A tensor as something that compares to the bit."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    array = np.asarray(value)
    return array.tolist() if array.dtype == np.dtype(object) else array.tobytes()


def check_graph(graph: Graph) -> None:
    """Names are unique, and everything stands behind what it needs."""
    known = {spec.name for spec in graph.inputs}
    for node in graph.nodes:
        for reference in references(node.inputs):
            assert node_of(reference.removeprefix("^")) in known, (node.name, reference)
        assert node.name not in known
        known.add(node.name)
    assert {node_of(reference) for reference in graph.outputs.values()} <= known


def check_whole_model(model: SavedModel) -> None:
    """Every function and entry decodes; keys name what exists."""
    for name in model.functions:
        for node in model.functions[name].nodes:
            assert node.attrs.get("table") is None or node.attrs["table"] in model.tables
    for entry in model.entries():
        graph = model.graph(entry)
        check_graph(graph)
        for node in graph.nodes:
            assert node.attrs.get("variable") is None or node.attrs["variable"] in model.variables
            assert node.attrs.get("table") is None or node.attrs["table"] in model.tables


def test_tables_of_a_module(module_path: Path) -> None:
    model = read(module_path)
    contents = {
        (t.key_dtype, t.value_dtype, t.mutable): dict(zip(t.keys.tolist(), t.values.tolist()))
        for t in model.tables.values()
    }
    assert contents == {
        ("string", "int64", False): {b"red": 0, b"green": 1, b" blue ": 2, b"\xff\xfe": 3},
        ("string", "float32", False): {b"a": 0.5, b"b": -1},
        ("int64", "string", False): {5: b"five", -7: b"\0"},
        ("int32", "float64", False): {1: 0.1, 2: 0.2},
        ("string", "bool", False): {b"t": True, b"f": False},
        ("string", "int64", True): {b"m": 7, b"n": 8},
    }
    files = [table.file for table in model.tables.values() if table.file is not None]
    assert files == [module_path / "assets" / "vocabulary.txt"]


def test_a_tf_keras_model(keras_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    model = read(keras_path)
    loaded = tf.saved_model.load(str(keras_path))
    graph = model.graph(model.default_entry())
    used = {node.attrs["variable"] for node in graph.nodes if "variable" in node.attrs}
    ours = sorted((v.name, bits(v.numpy())) for key, v in model.variables.items() if key in used)
    theirs = sorted(
        (variable.name.removesuffix(":0"), bits(variable.numpy())) for variable in loaded.trainable_variables
    )
    assert ours == theirs
    assert all(variable.trainable for key, variable in model.variables.items() if key in used)
    assert len(model.variables) > len(used)  # the optimizer's are listed, and used by nothing
    contents = [t.keys.tolist() for t in model.tables.values() if not t.mutable]
    assert sorted(contents) == [[b"a", b"b", b"c"], [b"blue", b"sky", b"sea"]]
    check_whole_model(model)


def test_a_keras_3_model(keras3_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    model = read(keras3_path)
    loaded = tf.saved_model.load(str(keras3_path))
    graph = model.graph(model.default_entry())
    used = [model.variables[node.attrs["variable"]] for node in graph.nodes if "variable" in node.attrs]
    assert sorted(bits(v.numpy()) for v in used) == sorted(bits(v.numpy()) for v in loaded.variables)
    assert sum(v.trainable for v in used) == len(loaded.trainable_variables)
    check_whole_model(model)


def test_a_tf1_model(graph_path: Path) -> None:
    model = read(graph_path)
    assert model.tag_sets == (("serve",), ("train",))
    values = {
        name: (v.numpy().tolist(), v.trainable) for name, v in model.variables.items() if not name.startswith("parts")
    }
    assert values == {"old": ([[1.0, 1.0]] * 4, True), "frozen": ([3.0, 4.0], False)}
    parts = [model.variables[f"parts/part_{i}"] for i in range(3)]
    assert [part.shape for part in parts] == [(3, 2), (2, 2), (2, 2)]
    assert {part.checkpoint_key for part in parts} == {"parts"}
    table = next(iter(model.tables.values()))
    assert dict(zip(table.keys.tolist(), table.values.tolist())) == {b"cat": 3, b"dog": 5}
    graph = model.graph("serving_default")
    check_graph(graph)
    assert graph.inputs == (
        TensorSpec("s_indices", "int64", (None, 2)), TensorSpec("s_values", "string", (None,)), TensorSpec("s_dense_shape", "int64", (2,)),
        TensorSpec("x", "float32", (None, 4)),
    )  # fmt: skip
    assert {node.attrs["variable"] for node in graph.nodes if "variable" in node.attrs} == set(model.variables)
    assert read(graph_path, tags="train").tags == ("train",)
    with pytest.raises(PortingError, match="serve; train"):
        read(graph_path, tags=["gpu"])


def test_text_form(module_path: Path, copy: Callable[[Path], Path]) -> None:
    from google.protobuf import text_format

    tf = pytest.importorskip("tensorflow")
    from tensorflow.core.protobuf import saved_model_pb2

    path = copy(module_path)
    binary = read(module_path)
    message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (path / "saved_model.pb").unlink()
    (path / "saved_model.pbtxt").write_text(text_format.MessageToString(message))
    text = read(path)
    assert str(text.graph("serve")).replace(str(path), "") == str(binary.graph("serve")).replace(str(module_path), "")
    assert list(text.variables) == list(binary.variables)
    del tf


def test_names_of_inputs_win_over_names_of_nodes(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(module_path)

    def rename(meta: Any) -> None:
        inputs = meta.signature_def["serve"].inputs
        inputs["StatefulPartitionedCall"].CopyFrom(inputs["x"])
        del inputs["x"]

    before = read(path).graph("serve")
    mutate(path, rename)
    graph = read(path).graph("serve")
    check_graph(graph)
    assert graph.inputs[0].name == "StatefulPartitionedCall"
    assert graph.nodes[-1].inputs[0] == "StatefulPartitionedCall"
    assert graph.nodes[-1].name not in ("StatefulPartitionedCall", "x")
    assert len(graph.nodes) == len(before.nodes)


def test_an_inner_tensor_may_be_fed(graph_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(graph_path)
    full = read(path).graph("serving_default")
    inner = next(node for node in full.nodes if node.op == "MatMul")
    mutate(path, lambda meta: setattr(meta.signature_def["serving_default"].inputs["x"], "name", f"{inner.name}:0"))
    graph = read(path).graph("serving_default")
    check_graph(graph)
    assert not any(node.name == inner.name or node.attrs.get("variable") == "old" for node in graph.nodes)


def test_reading_is_lazy_and_small(tmp_path: Path) -> None:
    """A table of 64 MB: reading and verifying it allocates next to nothing."""
    tf = pytest.importorskip("tensorflow")
    module = tf.Module()
    module.table = tf.Variable(tf.random.stateless_uniform([1 << 18, 64], [1, 2]))
    tf.saved_model.save(module, str(tmp_path / "saved"))
    seen: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        model = read(tmp_path / "saved", progress=lambda done, total: seen.append((done, total)))
        tensor = model.variables["table"].tensor()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    assert seen[-1][0] == seen[-1][1] > 1 << 26
    assert tensor.numpy().tobytes() == module.table.numpy().tobytes()


def test_a_missing_variable_file(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(module_path)
    (path / "variables" / "variables.index").unlink()
    model = read(path)
    with pytest.raises(CorruptModelError, match=r"variables.index is missing"):
        model.graph("serve")


def test_tables_of_every_kind(tmp_path: Path) -> None:
    """Anonymous, dense and vector-valued ones; a signature and a restored function name the same tables."""
    tf = pytest.importorskip("tensorflow")
    lookup = tf.lookup

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            initializer = lookup.KeyValueTensorInitializer(["a", "b"], np.int64([1, 2]))
            self.anonymous = lookup.StaticHashTable(initializer, -1, experimental_is_anonymous=True)
            self.mutable = lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, experimental_is_anonymous=True)
            self.mutable.insert(["q"], np.int64([5]))
            self.dense = lookup.experimental.DenseHashTable(tf.int64, tf.float32, -1.0, empty_key=0, deleted_key=-1)
            self.dense.insert(np.int64([3, 4]), np.float32([0.5, 0.75]))
            self.vectors = lookup.experimental.MutableHashTable(tf.string, tf.float32, [0.0, 0.0])
            self.vectors.insert(["z"], [[1.0, 2.0]])
            words = lookup.KeyValueTensorInitializer(["x", "y"], np.int64([0, 1]))
            self.buckets = lookup.StaticVocabularyTable(words, 2)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, x: Any) -> Any:
            numbers = self.dense.lookup(tf.constant([3], tf.int64)) + self.vectors.lookup(x)[:, 0]
            return (
                self.anonymous.lookup(x) + self.mutable.lookup(x) + self.buckets.lookup(x) + tf.cast(numbers, tf.int64)
            )

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"s": module.__call__})
    model = read(tmp_path / "saved")
    contents = sorted(repr(dict(zip(table.keys.tolist(), table.values.tolist()))) for table in model.tables.values())
    expected = [{b"a": 1, b"b": 2}, {b"q": 5}, {3: 0.5, 4: 0.75}, {b"z": [1.0, 2.0]}, {b"x": 0, b"y": 1}]
    assert contents == sorted(map(repr, expected))
    by_signature = {node.attrs["table"] for node in model.graph("s").nodes if "table" in node.attrs}
    creators = [node.attrs["f"].name for node in model.graph("__call__").nodes if node.name.startswith("resource")]
    by_function = {
        node.attrs["table"] for name in creators for node in model.functions[name].nodes if "table" in node.attrs
    }
    assert by_signature == by_function == set(model.tables)
