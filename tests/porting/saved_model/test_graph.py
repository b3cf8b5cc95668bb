"""Graphs and object graphs that contradict themselves."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from porting.errors import CorruptModelError, PortingError
from porting.saved_model import SavedModel, protos, read
from porting.saved_model.op_definitions import definition
from tests.porting.saved_model.conftest import mutate
from torch_towers.errors import TorchTowersError


def build(text: str, functions: str = "", inputs: str = "x", outputs: str = "y") -> SavedModel:
    """A SavedModel in memory whose signature "s" goes from placeholder "x" to node "y", from lines `name op input,input [attr { ... }]`."""
    meta = protos.message_class("MetaGraphDef")()
    for line in text.strip().splitlines():
        name, op, *rest = line.split(maxsplit=3)
        node = meta.graph_def.node.add(name=name, op=op)
        node.input.extend(part for part in (rest[0] if rest else "-").split(",") if part != "-")
        if len(rest) > 1:
            node.MergeFrom(protos.parse_text("NodeDef", rest[1], "test"))
        complete(node)
    if functions:
        meta.graph_def.library.MergeFrom(protos.parse_text("FunctionDefLibrary", functions, "test"))
        for function in meta.graph_def.library.function:
            for node in function.node_def:
                complete(node)
    for name in filter(None, inputs.split(",")):
        meta.signature_def["s"].inputs[name].name = f"{name}:0"
        meta.signature_def["s"].inputs[name].dtype = 1
    for name in outputs.split(","):
        meta.signature_def["s"].outputs[name].name = f"{name}:0"
        meta.signature_def["s"].outputs[name].dtype = 1
    return SavedModel(Path("memory"), meta, [()], None)


def complete(node: Any) -> None:
    """Gives a node the attributes that it lacks: everything is a float."""
    count = sum(not name.startswith("^") for name in node.input)
    known = definition(node.op)
    for name, attribute in known.attributes.items() if known else ():
        if not attribute.required or name in node.attr or attribute.kind == "func":
            continue
        value = node.attr[name]
        if attribute.kind == "type":
            value.type = 1
        elif attribute.kind == "int":
            value.i = count
        elif attribute.kind == "list(type)":
            value.list.type.extend([1] * (count if name == "Tin" else 1))
        elif attribute.kind == "shape":
            value.shape.SetInParent()
        elif attribute.kind == "tensor":
            value.tensor.dtype = 1
            value.tensor.tensor_shape.SetInParent()


def test_a_good_graph() -> None:
    graph = build("x Placeholder\nz Const\ny AddV2 x,z:0,^c,^x\nc NoOp\nunreached Foo nothing").graph("s")
    assert [node.name for node in graph.nodes] == ["z", "c", "y"]
    assert graph.nodes[-1].inputs == ("x", "z", "^c")


@pytest.mark.parametrize(
    "text, error",
    [
        ("x Placeholder\ny Neg nothing", "'nothing'"),
        ("x Placeholder\ny Neg x,^nothing", "'nothing'"),
        ("x Placeholder\ny Neg y", "cycle"),
        ("x Placeholder\ny Neg a\na Neg b\nb Neg a", "cycle"),
        ("x Placeholder\ny Neg a\na Neg x,^y", "cycle"),
        ("x Placeholder\nc Const\ny Neg c:1", "has 1 such outputs"),
        ("x Placeholder\nc Const\ny Neg c:one", "number"),
        ("x Placeholder\nc Const\ny Neg c:-1", "number"),
        ('x Placeholder\ny AddN x,x attr { key: "N" value { i: 3 } }', "expected 3"),
        ('x Placeholder\ny AddN x,x attr { key: "N" value { i: 250000000 } }', "N = 250000000"),
        ('x Placeholder\ny Pack x attr { key: "N" value { i: -1 } }', "-1 as 'N'|N = -1"),
        ('x Placeholder\ny Split x attr { key: "num_split" value { i: 250000000 } }', "num_split"),
        ('x Placeholder\ny Unpack x attr { key: "num" value { i: -1 } }', "-1 as 'num'|num = -1"),
        ('x Placeholder\ny Const - attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: "abc" } } }', "3 bytes"),
        ('x Placeholder\ny Const - attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { dim { size: -1 } } } } }', "shape"),
        ('x Placeholder\ny Neg x attr { key: "T" value { type: 77 } }', "77"),
        ("x Placeholder\ny PartitionedCall x", "which function"),
        ('x Placeholder\nv VarHandleOp - attr { key: "dtype" value { type: DT_FLOAT } }\ny ReadVariableOp v', "not in the checkpoint"),
        ('x Placeholder\nv VarHandleOp - attr { key: "variable" value { s: "forged" } }\ny ReadVariableOp v', "forged"),
        ('x Placeholder\ny Const - attr { key: "asset" value { s: "../x" } }', "asset"),
    ],
)  # fmt: skip
def test_contradictions_on_the_way_to_an_output(text: str, error: str) -> None:
    with pytest.raises(PortingError, match=error) as caught:
        build(text).graph("s")
    assert "memory" in str(caught.value)


def test_contradictions_in_signatures() -> None:
    with pytest.raises(CorruptModelError, match="two are named 'x'"):
        build("x Placeholder\nx Placeholder\ny Neg x")
    with pytest.raises(CorruptModelError, match="'z' is tensor 'z:0'"):
        build("x Placeholder\ny Neg x", outputs="z").graph("s")
    with pytest.raises(CorruptModelError, match="'w' is tensor 'w:0'"):
        build("x Placeholder\ny Neg x", inputs="x,w").graph("s")


FUNCTION = """function {{ signature {{ name: "f" input_arg {{ name: "a" type: DT_FLOAT }} output_arg {{ name: "r" type: DT_FLOAT }} }} {body} }}"""
GOOD_BODY = 'node_def { name: "n" op: "Neg" input: "a" } ret { key: "r" value: "n:y:0" }'


@pytest.mark.parametrize(
    "body, error",
    [
        ('node_def { name: "n" op: "Neg" input: "b" } ret { key: "r" value: "n:y:0" }', "takes 'b'"),
        ('node_def { name: "n" op: "Neg" input: "a" }', "output 'r'"),
        ('node_def { name: "n" op: "Neg" input: "a" } ret { key: "r" value: "m:y:0" }', "output 'r'"),
        (GOOD_BODY + 'node_def { name: "n" op: "Neg" input: "a" }', "one name"),
        (GOOD_BODY + 'node_def { name: "a" op: "Neg" input: "n" }', "one name"),
    ],
)
def test_contradictions_in_functions(body: str, error: str) -> None:
    model = build("x Placeholder\ny Neg x", FUNCTION.format(body=body))
    with pytest.raises(CorruptModelError, match=error):
        model.functions["f"]


def test_outputs_of_a_call_are_counted() -> None:
    functions = FUNCTION.format(body=GOOD_BODY)
    call = 'x Placeholder\nc PartitionedCall x attr { key: "f" value { func { name: "f" } } }\ny Neg c:'
    assert build(call + "0", functions).graph("s").nodes[-1].inputs == ("c",)
    with pytest.raises(CorruptModelError, match="has 1 such outputs"):
        build(call + "1", functions).graph("s")
    with pytest.raises(CorruptModelError, match="two are named 'f'"):
        build("x Placeholder\ny Neg x", functions * 2)


def test_loops_of_tensorflow_1_are_no_cycles() -> None:
    graph = build("x Placeholder\nm Merge x,i\na Neg m\ni NextIteration a\ny Exit a").graph("s")
    assert {node.name for node in graph.nodes} == {"m", "a", "i", "y"}


def test_deep_graphs() -> None:
    """50,000 nodes in a row, without recursion."""
    lines = ["x Placeholder", "n0 Neg x", *(f"n{i} Neg n{i - 1}" for i in range(1, 50_000)), "y Neg n49999"]
    model = build("\n".join(lines))
    assert len(model.graph("s").nodes) == 50_001


def objects(model: Path, change: Callable[[Any], None]) -> Path:
    mutate(model, lambda meta: change(meta.object_graph_def))
    return model


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda graph: graph.nodes[0].children.add(node_id=10**6, local_name="x"), "object 1000000, expected 0 to"),
        (lambda graph: graph.nodes[0].children.add(node_id=-1, local_name="x"), "object -1"),
        (
            lambda graph: [
                c.bound_inputs.__setitem__(-1, 10**6) for c in graph.concrete_functions.values() if c.bound_inputs
            ],
            "object 1000000",
        ),
        (
            lambda graph: [setattr(n.variable, "dtype", 3) for n in graph.nodes if n.WhichOneof("kind") == "variable"],
            "int32",
        ),
        (
            lambda graph: [n.variable.shape.dim.add(size=7) for n in graph.nodes if n.WhichOneof("kind") == "variable"],
            "in the graph and",
        ),
        (lambda graph: graph.concrete_functions.clear(), "missing from the object graph"),
        (
            lambda graph: [
                setattr(n.constant, "operation", "no") for n in graph.nodes if n.WhichOneof("kind") == "constant"
            ],
            "constant 'no'",
        ),
    ],
)
def test_contradictions_in_the_object_graph(
    module_path: Path, copy: Callable[[Path], Path], change: Any, error: str
) -> None:
    path = objects(copy(module_path), change)
    with pytest.raises(CorruptModelError, match=error):
        model = read(path)
        for entry in model.entries():
            model.graph(entry)


def test_cycles_among_objects_are_legal(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = objects(copy(module_path), lambda graph: graph.nodes[0].children.add(node_id=0, local_name="self"))
    model = read(path)
    assert model.graph("self.self.traced#1") == model.graph("traced#1")


def test_restore_op_and_object_graph_must_agree(module_path: Path, copy: Callable[[Path], Path]) -> None:
    path = copy(module_path)

    def swap(meta: Any) -> None:
        children = {child.local_name: child for child in meta.object_graph_def.nodes[0].children}
        a, b = children["twin_a"], children["twin_b"]
        a.node_id, b.node_id = b.node_id, a.node_id

    mutate(path, swap)
    with pytest.raises(CorruptModelError, match="contradicts itself"):
        read(path)


@pytest.mark.parametrize(
    "change, error",
    [
        (lambda meta: setattr(meta.saver_def, "restore_op_name", "nothing"), "'nothing'"),
        (
            lambda meta: setattr(
                meta.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"], "name", "nothing"
            ),
            "'nothing'",
        ),
        (lambda meta: setattr(meta.asset_file_def[0].tensor_info, "name", "nothing:0"), "'nothing'"),
        (lambda meta: meta.graph_def.library.ClearField("function"), "missing|library"),
    ],
)
def test_contradictions_in_restoring_and_initializing(
    module_path: Path, copy: Callable[[Path], Path], change: Any, error: str
) -> None:
    path = copy(module_path)
    mutate(path, change)
    with pytest.raises(CorruptModelError, match=error):
        model = read(path)
        for entry in model.entries():
            model.graph(entry)


def test_functions_that_call_themselves_while_restoring_are_refused(
    module_path: Path, copy: Callable[[Path], Path]
) -> None:
    path = copy(module_path)

    def recurse(meta: Any) -> None:
        for function in meta.graph_def.library.function:
            if "traced_restore" in function.signature.name:
                node = function.node_def.add(name="again", op="StatefulPartitionedCall")
                node.attr["f"].func.name = function.signature.name

    mutate(path, recurse)
    with pytest.raises(CorruptModelError, match="calls itself"):
        read(path)


def test_calls_that_double_are_refused() -> None:
    """f0 calls f1 twice, f1 calls f2 twice, ...: 2**40 calls."""
    body = 'function {{ signature {{ name: "f{0}" }} node_def {{ name: "a" op: "f{1}" }} node_def {{ name: "b" op: "f{1}" }} }}'
    functions = "".join(body.format(i, i + 1) for i in range(40)) + 'function { signature { name: "f40" } }'
    meta = protos.message_class("MetaGraphDef")()
    meta.graph_def.library.MergeFrom(protos.parse_text("FunctionDefLibrary", functions, "test"))
    meta.graph_def.node.add(name="start", op="f0")
    meta.collection_def["saved_model_main_op"].node_list.value.append("start")
    with pytest.raises(PortingError, match="calls"):
        SavedModel(Path("memory"), meta, [()], None)


def test_deep_and_repetitive_object_graphs() -> None:
    meta = protos.message_class("MetaGraphDef")()
    graph = meta.object_graph_def
    for i in range(100_000):
        graph.nodes.add(user_object={"identifier": "x"}).children.add(node_id=(i + 1) % 100_000, local_name="next")
    assert SavedModel(Path("memory"), meta, [()], None).entries() == []


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_ends_in_our_errors(module_path: Path, copy: Callable[[Path], Path], seed: int) -> None:
    """Bytes of saved_model.pb changed at random: whatever still parses reads, or is refused with one of our errors."""
    path = copy(module_path)
    good = (path / "saved_model.pb").read_bytes()
    chance = random.Random(seed)
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 2, 20])):
            bad[chance.randrange(len(bad))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
        (path / "saved_model.pb").write_bytes(bad)
        use_everything(path)


@pytest.mark.parametrize("seed", range(8))
def test_random_changes_of_fields_end_in_our_errors(module_path: Path, copy: Callable[[Path], Path], seed: int) -> None:
    """Fields of the messages removed, changed and swapped at random, which gets further than changed bytes."""
    path = copy(module_path)
    good = (path / "saved_model.pb").read_bytes()
    chance = random.Random(seed)
    for _ in range(40):
        (path / "saved_model.pb").write_bytes(good)
        mutate(path, lambda meta: [scramble(meta, chance) for _ in range(chance.choice([1, 5, 30]))])
        use_everything(path)


def scramble(message: Any, chance: random.Random) -> None:
    """Changes one field somewhere below `message`."""
    while True:
        fields = message.ListFields()
        if not fields:
            return
        field, value = chance.choice(fields)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key = chance.choice(sorted(value))
            if chance.random() < 0.1:
                del value[key]
                return
            if field.message_type.fields_by_name["value"].message_type is None:
                value[key] = chance.choice(["", "x:0", *value.values()])
                return
            message = value[key]
        elif field.is_repeated:
            index = chance.randrange(len(value))
            if chance.random() < 0.1:
                del value[index]
                return
            if field.message_type is None:
                if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
                    value[index] = chance.choice(list(value))
                elif field.type not in (field.TYPE_FLOAT, field.TYPE_DOUBLE, field.TYPE_BOOL):
                    value[index] = chance.choice([0, 1, 5, 100])
                return
            message = value[index]
        elif field.message_type is not None:
            if chance.random() < 0.1:
                message.ClearField(field.name)
                return
            message = value
        else:
            other: Any = {field.TYPE_STRING: "x", field.TYPE_BYTES: b"x", field.TYPE_BOOL: not value}.get(field.type)
            numbers = [0, 1, 3, 7, 20, 100] + ([-1, 1 << 40] if field.type == field.TYPE_INT64 else [])
            setattr(message, field.name, chance.choice(numbers) if other is None else other)
            return


def use_everything(path: Path) -> None:
    """Each part on its own, so that one refusal does not hide what lies behind it."""
    try:
        model = read(path)
        entries = model.entries()
    except TorchTowersError:
        return
    uses: list[Callable[[], Any]] = [model.default_entry]
    uses += [lambda entry=entry: model.graph(entry) for entry in entries]
    uses += [lambda name=name: model.functions[name] for name in model.functions]
    uses += [lambda table=table: len(table) for table in model.tables.values()]
    uses += [lambda variable=variable: variable.numpy() for variable in model.variables.values()]
    for use in uses:
        with contextlib.suppress(TorchTowersError):
            use()
