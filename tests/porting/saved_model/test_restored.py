"""Functions of the object graph are restored as TensorFlow restores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from porting.errors import PortingError
from porting.saved_model import FunctionRef, read
from torch_towers.graph.graph import TensorSpec


def proto_of(tf: Any, path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    del tf
    return saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0]


def test_restored_functions_of_a_module(module_path: Path) -> None:
    model = read(module_path)
    entries = model.entries()
    assert {"serve", "structured", "traced#0", "traced#1", "__call__"} <= set(entries)
    assert not any("trace_" in entry or "_initialize" in entry for entry in entries)
    graph = model.graph("structured")
    assert graph.inputs == (
        TensorSpec("a", "string", ()), TensorSpec("b", "int64", (None,)),
        TensorSpec("ragged/values", "int64", (None,)), TensorSpec("ragged/splits0", "int64", (None,)),
    )  # fmt: skip
    assert list(graph.outputs) == [
        "pair/output_0", "pair/output_1", "ragged/values", "ragged/splits0", "sparse/indices", "sparse/values", "sparse/dense_shape"
    ]  # fmt: skip
    assert any(node.op == "Const" and node.attrs["value"].tolist() == [1, 2, 3] for node in graph.nodes)
    assert list(model.graph("__call__").outputs) == ["values", "splits0"]
    assert {model.graph(f"traced#{i}").inputs[0].dtype for i in (0, 1)} == {"float32", "int64"}
    assert model.graph("root.traced#1") == model.graph("traced#1")
    assert list(model.graph("traced").outputs) == ["output"]
    call = model.graph("__call__").nodes[-1]
    assert call.op == "StatefulPartitionedCall"
    assert isinstance(call.attrs["f"], FunctionRef)
    assert call.attrs["f"].name in model.functions
    assert [node.attrs.get("variable") for node in model.graph("__call__").nodes] == ["scalar", None]
    for entry in ("traced#2", "traced#x", "nothing", "traced.x", "dtypes", "__call__#-1", ""):
        with pytest.raises(PortingError):
            model.graph(entry)


def test_functions_of_a_module(module_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    model = read(module_path)
    library = {function.signature.name: function for function in proto_of(tf, module_path).graph_def.library.function}
    assert set(model.functions) == set(library)
    for name, theirs in library.items():
        ours = model.functions[name]
        assert [spec.name for spec in ours.inputs] == [arg.name for arg in theirs.signature.input_arg]
        assert [spec.dtype for spec in ours.inputs] == [
            tf.dtypes.as_dtype(arg.type).name for arg in theirs.signature.input_arg
        ]
        assert list(ours.outputs) == [(arg.name, theirs.ret[arg.name]) for arg in theirs.signature.output_arg]
        assert [(node.name, node.op, list(node.inputs)) for node in ours.nodes] == [
            (n.name, n.op, list(n.input)) for n in theirs.node_def
        ]
    with pytest.raises(KeyError):
        model.functions["nothing"]
