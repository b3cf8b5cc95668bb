"""Where a graph can hold no NaN whatever the inputs are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from porting.served.draft import Draft
from porting.served.finite import Finite
from torch_towers.graph.graph import Graph, Node, TensorSpec

INPUTS = (TensorSpec("x", "float32", ("n",)), TensorSpec("ids", "int64", ("n",)))
KNOWN = (
    Node("weight", "VarHandleOp"),
    Node("table", "ReadVariableOp", ("weight",)),
    Node("one", "Const", (), {"value": np.float32(1)}),
    Node("nan", "Const", (), {"value": np.float32("nan")}),
    Node("axis", "Const", (), {"value": np.int32(0)}),
    Node("rows", "GatherV2", ("table", "ids", "axis")),
)


def finite(*nodes: Node) -> bool:
    """Whether the last node is finite."""
    graph = Graph(INPUTS, (*KNOWN, *nodes), {"out": nodes[-1].name})

    def evaluate(asked: Graph) -> torch.Tensor | None:
        (name,) = asked.outputs.values()
        found: Any = next(node.attrs.get("value") for node in asked.nodes if node.name == name.partition(":")[0])
        return None if found is None else torch.as_tensor(found)

    return Finite(Draft(graph, evaluate))(nodes[-1].name)


@pytest.mark.parametrize(
    ("expected", "nodes"),
    [
        (True, [Node("y", "Tanh", ("rows",))]),
        (True, [Node("y", "AddV2", ("rows", "one"))]),
        (True, [Node("y", "Cast", ("ids",), {"SrcT": "int64"})]),
        (True, [Node("y", "ConcatV2", ("rows", "table", "axis"))]),
        (True, [Node("y", "SelectV2", ("x", "rows", "one"))]),  # what decides is not the result
        (True, [Node("y", "Reshape", ("rows", "x"))]),
        (False, [Node("y", "Tanh", ("x",))]),
        (False, [Node("y", "AddV2", ("rows", "nan"))]),
        (False, [Node("y", "Log", ("rows",))]),
        (False, [Node("y", "RealDiv", ("rows", "one"))]),
        (False, [Node("y", "Cast", ("x",), {"SrcT": "float32"})]),
        (False, [Node("y", "SelectV2", ("ids", "rows", "x"))]),
        (False, [Node("y", "ConcatV2", ("rows", "x", "axis"))]),
        (False, [Node("z", "Log", ("rows",)), Node("y", "Identity", ("z",))]),
    ],
)
def test_finite(expected: bool, nodes: list[Node]) -> None:
    assert finite(*nodes) is expected
