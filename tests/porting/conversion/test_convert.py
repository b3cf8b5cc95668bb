"""Converting a graph: refusals and their messages, and large graphs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from porting.conversion.convert import Context, ConvertingEmitter, convert
from porting.errors import PortingError
from porting.registry import CONVERTERS, converter
from porting.saved_model import Function, FunctionRef
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.graph.registry import OPS
from torch_towers.program.program import Program

X = TensorSpec("x", "float32", (None, 4))


def test_no_attribute_of_the_emitter_hides_an_op() -> None:
    emitter = ConvertingEmitter(Graph((), (), {}), Context(SimpleNamespace(functions={})))  # type: ignore[arg-type]
    assert OPS.keys() & {*dir(emitter)} == {"stack"}  # `Pack` says `t.call("stack", ...)`


AXIS = TensorSpec("axis", "int32", ())


def context(*functions: Function) -> Context:
    library = {function.name: function for function in functions}
    return Context(SimpleNamespace(path=Path("m"), functions=library, variables={}, tables={}))  # type: ignore[reportArgumentType]


def const(name: str, value: Any) -> Node:
    return Node(name, "Const", (), {"value": np.asarray(value), "dtype": np.asarray(value).dtype.name})


def ported(*nodes: Node, functions: tuple[Function, ...] = (), **outputs: str) -> Program:
    shared = context(*functions)
    graph, _ = convert(Graph((X, AXIS), nodes, outputs), shared)
    return Program(graph, shared.store)


def refusal(*nodes: Node, functions: tuple[Function, ...] = (), **outputs: str) -> str:
    with pytest.raises(PortingError) as caught:
        ported(*nodes, functions=functions, **outputs)
    return str(caught.value)


def test_an_attribute_that_nobody_reads_is_an_error_that_names_it() -> None:
    text = refusal(Node("scope/neg", "Neg", ("x",), {"T": "float32", "round_up": True}), y="scope/neg")
    assert text == "Neg 'scope/neg': the attribute `round_up` = True is not read by its converter"


def test_attributes_of_types_and_of_execution_are_not_read() -> None:
    attrs = {"T": "float32", "Tsomething": "int32", "_class": (b"loc:@w",), "parallel_iterations": 10}
    assert ported(Node("neg", "Neg", ("x",), attrs), y="neg")


def test_an_operand_that_must_be_a_constant() -> None:
    zeros = const("ids", np.zeros(2, np.int32))
    text = refusal(zeros, Node("query/embed/GatherV2", "GatherV2", ("x", "ids", "axis")), y="query/embed/GatherV2")
    assert text == "GatherV2 'query/embed/GatherV2': operand `axis` must be a constant, but 'axis' computes it"


def test_all_missing_ops_are_listed_at_once_also_those_in_branches() -> None:
    body = Function("body", (X,), (("y", "b:y:0"),), (Node("b", "Unheard", ("x",)),), ())
    branches = {"then_branch": FunctionRef("body", {}), "else_branch": FunctionRef("body", {})}
    text = refusal(
        Node("s/a", "Nonesuch", ("x",)),
        Node("s/b", "Nonesuch", ("s/a",)),
        const("yes", True),
        Node("if", "If", ("yes", "s/b"), branches),
        functions=(body,),
        y="if",
    )
    assert "2 ops have no converter: Nonesuch (x2), Unheard (x1)" in text
    assert "first use: s/a  (Nonesuch)" in text


def test_wrong_numbers_of_operands() -> None:
    assert refusal(Node("n", "Neg", ("x", "x")), y="n") == "Neg 'n' has 2 operands; its converter takes 1"


def test_a_converter_that_fails_is_a_sentence_with_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    context()
    monkeypatch.delitem(CONVERTERS, "Neg")

    @converter("Neg")
    def fails(t: Any, x: Any) -> Any:
        raise KeyError("oh")

    assert refusal(Node("a/n", "Neg", ("x",)), y="a/n") == "Neg 'a/n' could not be converted: KeyError: 'oh'"


def test_an_op_has_one_converter() -> None:
    context()
    with pytest.raises(ValueError, match="'Neg' has two converters"):
        converter("Neg")(lambda t, x: x)


def test_twenty_thousand_nodes_in_one_chain() -> None:
    """No recursion and no quadratic cost: 20,000 nodes take seconds instead of hours."""
    nodes = [const("c0", np.float32(1)), Node("n0", "AddV2", ("x", "c0"))]
    for i in range(1, 10_000):
        nodes += [const(f"c{i}", np.float32(1)), Node(f"n{i}", "AddV2", (f"n{i - 1}", f"c{i}"))]
    program = ported(*nodes, y="n9999")
    with torch.inference_mode():
        assert program(x=torch.zeros(2, 4), axis=torch.tensor(0))["y"].tolist() == [[10_000.0] * 4] * 2
