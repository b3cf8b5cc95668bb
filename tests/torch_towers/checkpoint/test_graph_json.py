"""Graphs round-trip through JSON exactly, and anything outside the closed tables is refused."""

from __future__ import annotations

import copy
import json
import math
import typing
from typing import Annotated, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.torch_towers.towers import id_spec, id_store, word_spec, word_store
from torch_towers.checkpoint.graph_json import GraphReader, Kind, fits, graph_to_json
from torch_towers.checkpoint.weights import parse_json
from torch_towers.errors import CheckpointError
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.graph.registry import MODULES, OPS


def kinds(store: dict[str, Any]) -> dict[str, Kind]:
    return {name: "strings" if value.dtype == object else "tensor" for name, value in store.items()}


def through_json(graph: Graph, store: dict[str, Any]) -> Graph:
    data = parse_json(json.dumps(graph_to_json(graph), allow_nan=False).encode(), "test")
    return GraphReader(kinds(store)).graph(data, "test")


@pytest.mark.parametrize("spec, store", [(word_spec(), word_store()), (id_spec(), id_store())])
def test_graphs_survive(spec: Any, store: dict[str, Any]) -> None:
    for graph in (spec.preprocess, spec.encoder, spec.postprocess):
        if graph is not None:
            assert through_json(graph, store) == graph


def same(a: Any, b: Any) -> bool:
    """Equal in value and type, -0.0 and NaN told apart."""
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and (
            (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
        )
    return type(a) is type(b) and a == b


scalars = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats()
values = st.recursive(
    scalars | st.binary() | st.text(), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=8
)


@given(values)
def test_any_attribute_survives(value: Any) -> None:
    data = json.loads(json.dumps(graph_to_json(Graph((), (Node("n", "test", (), {"a": value}),), {})), allow_nan=False))
    assert same(GraphReader({})._value(data["nodes"][0]["attrs"]["a"], "test", 0), value)


@given(st.lists(scalars | st.just("x"), max_size=5))
def test_any_literal_operand_survives(items: list[Any]) -> None:
    graph = Graph((TensorSpec("x", "float32", None),), (Node("n", "identity", (tuple(items),)),), {"y": "n"})
    assert same(through_json(graph, {}).nodes[0].inputs, graph.nodes[0].inputs)


def test_bodies_survive() -> None:
    body = Graph((TensorSpec("i", "int64", ()),), (Node("next", "add", ("i", 1)),), {"i": "next"})
    (attr,) = [name for name, hint in OPS["while_loop"].hints.items() if "Callable" in str(hint)][:1] or ["body"]
    assert fits(body, OPS["while_loop"].hints[attr])
    data = graph_to_json(Graph((), (Node("n", "test", (), {"body": body}),), {}))
    assert GraphReader({})._value(data["nodes"][0]["attrs"]["body"], "test", 0) == body


def test_every_annotation_of_the_tables_is_understood() -> None:
    for entry in (*OPS.values(), *MODULES.values()):
        for name, hint in entry.hints.items():
            if name not in ("return", "device"):
                fits(3, hint)


FREE = {("einsum", "equation"), ("EinsumDense", "equation"), ("in_shape", "what"), ("ragged_cross", "order")}
"""Texts that are a language of their own, or said in an error."""


def test_every_text_of_an_op_or_layer_is_one_of_a_closed_set() -> None:
    free = {
        (entry.name, name)
        for entry in (*OPS.values(), *MODULES.values())
        for name, hint in entry.hints.items()
        if name != "return" and _takes_any_text(hint)
    }
    assert free == FREE


def _takes_any_text(hint: Any) -> bool:
    if hint is str:
        return True
    return typing.get_origin(hint) is not Annotated and any(map(_takes_any_text, typing.get_args(hint)))


GOOD = graph_to_json(word_spec().encoder)


def broken(change: Any) -> Any:
    data = copy.deepcopy(GOOD)
    change(data)
    return data


def node(data: Any, name: str) -> Any:
    return next(item for item in data["nodes"] if item["name"] == name)


ATTACKS = {
    "an op that does not exist": (lambda d: node(d, "out").update(op="system"), "no op 'system'"),
    "an op by a path": (lambda d: node(d, "out").update(op="torch.hub.load"), "no op"),
    "an op that is not text": (lambda d: node(d, "out").update(op=["add"]), "must be a string"),
    "a missing operand": (lambda d: node(d, "out").update(inputs=["scaled"]), "takes 2 operands"),
    "an extra operand": (lambda d: node(d, "out").update(inputs=["scaled", 1.0, 2.0]), "takes 2 operands"),
    "an operand that is text in an object": (lambda d: node(d, "out").update(inputs=["scaled", {"bytes": "a"}]), "cannot be"),
    "a missing attribute": (lambda d: node(d, "joined").update(attrs={}), "lacks its attribute `axis`"),
    "an unknown attribute": (lambda d: node(d, "joined")["attrs"].update(out="x"), "no attribute `out`"),
    "the device": (lambda d: node(d, "joined")["attrs"].update(device="cuda"), "no attribute `device`"),
    "an attribute of another type": (lambda d: node(d, "joined")["attrs"].update(axis="1"), "cannot be '1'"),
    "a float for an int": (lambda d: node(d, "joined")["attrs"].update(axis=1.0), "cannot be 1.0"),
    "a bool for an int": (lambda d: node(d, "joined")["attrs"].update(axis=True), "cannot be True"),
    "a dtype that there is not": (lambda d: node(d, "out").update(op="cast", inputs=["scaled"], attrs={"dtype": "float33"}), "the attribute `dtype` of cast cannot be 'float33'"),
    "a dtype that no tensor has": (lambda d: node(d, "out").update(op="cast", inputs=["scaled"], attrs={"dtype": "string"}), "the attribute `dtype` of cast cannot be 'string'"),
    "a word that is none of an op's": (lambda d: node(d, "out").update(op="gelu", inputs=["scaled"], attrs={"form": "sin"}), "the attribute `form` of gelu cannot be 'sin'"),
    "an encoding that there is not": (lambda d: node(d, "out").update(op="transcode", inputs=["scaled"], attrs={"input_encoding": "x", "output_encoding": "UTF-8"}), "cannot be 'x'"),
    "a dtype of a column": (lambda d: node(d, "out").update(op="parse_examples", inputs=["ids", "ids", []], attrs={"sparse": [[{"bytes": "k"}, "int128"]], "dense": [], "ragged": []}), "the attribute `sparse` of parse_examples"),
    "a key of three integers": (lambda d: node(d, "out").update(op="hash_bucket_strong", inputs=["ids"], attrs={"num_buckets": 3, "key": [1, 2, 3]}), "the attribute `key`"),
    "a word that is none of a layer's": (lambda d: d["modules"].update(c={"type": "CategoryEncoding", "args": {"num_tokens": 3, "output_mode": "int"}}), "`output_mode` of CategoryEncoding cannot be 'int'"),
    "a dtype of a layer": (lambda d: d["modules"].update(c={"type": "CategoryEncoding", "args": {"num_tokens": 3, "output_mode": "count", "dtype": "int128"}}), "`dtype` of CategoryEncoding cannot be 'int128'"),
    "a salt of three integers": (lambda d: d["modules"].update(c={"type": "Hashing", "args": {"num_bins": 3, "salt": [1, 2, 3]}}), "`salt` of Hashing cannot be"),
    "a huge integer": (lambda d: node(d, "joined")["attrs"].update(axis=1 << 70), "64 bits"),
    "a reference to a later node": (lambda d: node(d, "joined").update(inputs=["vectors", "out"]), "neither an input nor an earlier"),
    "a reference to itself": (lambda d: node(d, "out").update(inputs=["out", 1.0]), "neither an input nor an earlier"),
    "a result that is not there": (lambda d: node(d, "out").update(inputs=["scaled:3", 1.0]), "does not have"),
    "a result that is no number": (lambda d: node(d, "out").update(inputs=["scaled:-1", 1.0]), "does not have"),
    "a name with a path": (lambda d: node(d, "out").update(name="../out"), "is not a name"),
    "a dunder through a dot": (lambda d: node(d, "out").update(name="a..b"), "is not a name"),
    "a name twice": (lambda d: node(d, "out").update(name="scaled"), "is taken"),
    "the name of an input": (lambda d: node(d, "out").update(name="ids"), "is taken"),
    "an endless name": (lambda d: node(d, "out").update(name="a" * 5000), "is not a name"),
    "a tensor that is not there": (lambda d: node(d, "scale")["attrs"].update(tensor="nothing"), "no tensor or vocabulary"),
    "a vocabulary as a weight": (lambda d: node(d, "scale")["attrs"].update(tensor="table.keys"), "is a vocabulary"),
    "a parameter with operands": (lambda d: node(d, "scale").update(inputs=["ids"]), "no operands"),
    "a module that is not there": (lambda d: node(d, "dense_out")["attrs"].update(module="nothing"), "not among the graph's modules"),
    "a module called with two": (lambda d: node(d, "dense_out").update(inputs=["joined", "joined"]), "takes 1 operands"),
    "a type that does not exist": (lambda d: d["modules"]["dense"].update(type="os.system"), "no module 'os.system'"),
    "an argument too many": (lambda d: d["modules"]["dense"]["args"].update(x=1), "unexpected keyword"),
    "an argument missing": (lambda d: d["modules"]["dense"]["args"].pop("in_features"), "missing a required argument"),
    "a device for a module": (lambda d: d["modules"]["dense"]["args"].update(device="cpu"), "does not set `device`"),
    "an argument of another type": (lambda d: d["modules"]["dense"]["args"].update(in_features="4"), "cannot be '4'"),
    "a layer that cannot be": (lambda d: d["modules"]["dense"]["args"].update(in_features=-4), "cannot be built"),
    "a layer beyond memory": (lambda d: d["modules"]["dense"]["args"].update(in_features=1 << 62), "cannot be built"),
    "a layer without weights": (lambda d: d["modules"].update(dense2=d["modules"]["dense"]), "no tensor 'dense2.bias'"),
    "an output from nowhere": (lambda d: d["outputs"].update(x="nothing"), "neither an input nor"),
    "an output that is a number": (lambda d: d["outputs"].update(x=3), "not a reference"),
    "an unknown key": (lambda d: d.update(code="print()"), "unknown key 'code'"),
    "a missing key": (lambda d: d.pop("modules"), "lacks 'modules'"),
    "nodes that are an object": (lambda d: d.update(nodes={}), "must be an array"),
    "a node that is a list": (lambda d: d["nodes"].append([]), "must be an object"),
    "a dtype that does not exist": (lambda d: d["inputs"][0].update(dtype="int128"), "does not exist"),
    "a dtype that is a list": (lambda d: d["inputs"][0].update(dtype=[]), "does not exist"),
    "a negative size": (lambda d: d["inputs"][0].update(shape=[-1]), "has the size -1"),
    "a size that is a fraction": (lambda d: d["inputs"][0].update(shape=[1.5]), "has the size 1.5"),
    "two inputs of one name": (lambda d: d["inputs"].append(d["inputs"][0]), "two inputs have one name"),
    "an object that says nothing": (lambda d: node(d, "joined")["attrs"].update(axis={"pickle": "x"}), "not a value of a graph"),
    "a float that is none": (lambda d: node(d, "out").update(inputs=["scaled", {"float": "1e5"}]), "not a value of a graph"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks_on_a_graph(change: Any, message: str) -> None:
    reader = GraphReader(kinds(word_store()))
    assert reader.graph(GOOD, "encoder") == word_spec().encoder
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(").replace(")", r"\)")):
        GraphReader(kinds(word_store())).graph(broken(change), "encoder")


def places(data: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [here, *(place for key, value in inner for place in places(value, (*here, key)))]


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["", "ids", "dense", "scale", "x:0", "add"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["bytes", "float", "graph", "name", "op"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(st.sampled_from([place for place in places(GOOD) if place]), junk)
def test_anything_anywhere_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(GOOD)
    *path, last = place
    owner = data
    for key in path:
        owner = owner[key]
    owner[last] = value
    try:
        graph = GraphReader(kinds(word_store())).graph(data, "encoder")
    except CheckpointError:
        return
    assert through_json(graph, word_store()) == graph


def test_depth_bombs() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(CheckpointError, match="deep"):
        GraphReader({})._value(value, "test", 0)
    graph = Graph((), (), {})
    for _ in range(100):
        graph = Graph((), (Node("n", "while_loop", (), {"body": graph}),), {})
    with pytest.raises(CheckpointError, match="deep"):
        GraphReader({}).graph(graph_to_json(graph), "test")


JSON_ATTACKS = {
    b'{"a": 1, "a": 2}': "stands twice",
    b'{"a": NaN}': "NaN is not a JSON number",
    b'{"a": -Infinity}': "Infinity is not a JSON number",
    b'{"a": 1e999}': "out of range",
    b'{"a": "\xff"}': "is not JSON",
    b'{"a": ': "is not JSON",
    b"": "is not JSON",
    b"\xef\xbb\xbf{}": "is not JSON",
    b"9" * 5000: "is not JSON",
    b"[" * 100_000: "nested too deeply",
    b'{"a":' * 100_000: "nested too deeply",
}


@pytest.mark.parametrize("data, message", JSON_ATTACKS.items(), ids=[repr(key[:20]) for key in JSON_ATTACKS])
def test_json_that_no_machine_wrote(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_json(data, "config.json")


def test_a_module_name_may_be_a_method_of_nn_module() -> None:
    from torch_towers.program.program import Program

    spec = ModuleSpec("Linear", {"in_features": 4, "out_features": 4})
    nodes = (Node("y", "module", ("x",), {"module": "type.train"}), Node("w", "parameter", (), {"tensor": "forward"}),
             Node("z", "mul", ("y", "w")))  # fmt: skip
    graph = Graph((TensorSpec("x", "float32", None),), nodes, {"z": "z"}, {"type.train": spec})
    store = word_store()
    store = {
        "type.train.weight": store["dense.weight"],
        "type.train.bias": store["dense.bias"],
        "forward": store["scale"],
    }
    program = Program(graph, store)
    assert program.tensors().keys() == store.keys()
    assert set(program.state_dict()) == {"type_.train_.weight", "type_.train_.bias", "forward_"}
    x = store["type.train.weight"]
    wanted = (x @ x.T + store["type.train.bias"]) * store["forward"]
    torch.testing.assert_close(program(x=x)["z"], wanted, rtol=0, atol=2**-18)  # six roundings of numbers below 16
