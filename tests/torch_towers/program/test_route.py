"""The way to one output: what runs, what it reads, and where its rows end."""

from __future__ import annotations

from torch_towers.graph.graph import Graph, Node, Size, TensorSpec
from torch_towers.graph.spec import Padding, TowerSpec
from torch_towers.program.program import Program
from torch_towers.program.route import Route


def spec(length: Size = 5) -> TowerSpec:
    """`x` of ids, `y` of a mask of them, `z` of a number: outputs `a` of x, `b` of y, `c` of z."""
    ids, number = ("batch", length), ("batch",)
    inputs = (TensorSpec("ids", "int64", ids), TensorSpec("number", "float32", number))
    mask = Node("mask", "not_equal", ("ids", 0))
    preprocess = Graph(inputs, (mask,), {"x": "ids", "y": "mask", "z": "number"})
    given = (TensorSpec("x", "int64", ids), TensorSpec("y", "bool", ids), TensorSpec("z", "float32", number))
    nodes = (
        Node("total", "reduce_sum", ("x",), {"axes": (1,)}), Node("any", "reduce_any", ("y",), {"axes": (1,)}),
        Node("twice", "mul", ("z", 2.0)),
    )  # fmt: skip
    encoder = Graph(given, nodes, {"a": "total", "b": "any", "c": "twice"})
    outputs = tuple(TensorSpec(name, "float32", ("batch",)) for name in "abc")
    return TowerSpec(
        preprocess, encoder, None, inputs, outputs, "c", padding=(Padding("x", 0, ("x", "y"), ("a", "b")),)
    )


def names(program: Program) -> list[str]:
    return [node.name for node in program.graph.nodes]


def test_all_outputs() -> None:
    route, given = Route(spec()), spec()
    assert route.inputs == {"x": False, "y": False, "z": True}
    program = Program(given.encoder, {})
    assert route.encoder(program) is program
    assert not route.skips(None), "c has no padding"
    assert route.skips("a") and not route.skips("c")


def test_one_output() -> None:
    given = spec()
    route = Route(given, "c")
    assert route.inputs == {"z": True} and route.padding == ()
    assert names(route.encoder(Program(given.encoder, {}))) == ["twice"]
    assert names(route.preprocess(Program(given.preprocess, {}))) == []
    assert not route.skips("c")


def test_where_rows_end_is_read_of_an_input_that_the_output_does_not_need() -> None:
    given = spec()
    route = Route(given, "b")
    assert route.inputs == {"x": False, "y": False} and route.padding == given.padding
    assert names(route.encoder(Program(given.encoder, {}))) == ["any"]
    assert route.skips("b")


def test_rows_of_a_free_length_may_be_padded_to_each_other() -> None:
    assert Route(spec()).same_lengths
    assert not Route(spec(None)).same_lengths
    assert Route(spec(None), "c").same_lengths
