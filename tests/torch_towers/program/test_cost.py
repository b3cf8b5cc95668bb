"""The cost of a run against hand-counted multiplications."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.program.cost import BATCH, SMALL, UNKNOWN, Cost, each, memory_of, multiplications, work_of
from torch_towers.program.program import Program

X = TensorSpec("x", "float32", ("batch", 4))


def program(*nodes: Node, modules: Any = None, **store: Any) -> Program:
    return Program(Graph((X,), nodes, {"y": nodes[-1].name}, modules or {}), store)


def counted(made: Program, rows: int) -> list[float]:
    return [multiplications(made, node, env) for node, env in each(made, {"x": torch.ones(rows, 4)})]


def test_a_product_costs_rows_times_both_widths() -> None:
    made = program(Node("w", "parameter", (), {"tensor": "w"}), Node("y", "matmul", ("x", "w")), w=torch.ones(4, 5))
    assert counted(made, 3) == [0.0, 3 * 4 * 5]
    assert work_of(made, {"x": torch.ones(3, 4)}) == 3 * 4 * 5


def test_a_dense_layer_costs_what_its_product_does_and_an_element_what_its_memory_does() -> None:
    linear = {"dense": ModuleSpec("Linear", {"in_features": 4, "out_features": 6})}
    store = {"dense.weight": torch.ones(6, 4), "dense.bias": torch.ones(6)}
    made = program(Node("h", "module", ("x",), {"module": "dense"}), Node("y", "relu", ("h",)), modules=linear, **store)
    assert counted(made, 2) == [2 * 4 * 6, 0.0]
    assert work_of(made, {"x": torch.ones(2, 4)}) == 2 * 4 * 6 + 8 * 2 * 6


@pytest.mark.parametrize(
    ("kind", "kernel", "places"),
    [("Conv1d", (3,), 5), ("ConvTranspose1d", (3,), 7), ("Conv2d", (3, 1), 5)],
)
def test_a_convolution_costs_its_kernel_at_each_place_and_three_times_a_product(
    kind: str, kernel: tuple[int, ...], places: int
) -> None:
    """Seven positions of four numbers, to six numbers at each of five, or back from each of the seven."""
    spec = ModuleSpec(kind, {"in_channels": 4, "out_channels": 6, "kernel_size": kernel, "bias": False})
    back = kind.startswith("ConvTranspose")
    x = TensorSpec("x", "float32", ("batch", 7, *[1] * (len(kernel) - 1), 4))
    graph = Graph(
        (x,), (Node("y", "module", ("x", 9) if back else ("x",), {"module": "conv"}),), {"y": "y"}, {"conv": spec}
    )
    made = Program(graph, {"conv.weight": torch.ones(4, 6, *kernel) if back else torch.ones(6, 4, *kernel)})
    rows = torch.ones(2, *x.shape[1:])  # type: ignore[misc]
    assert [multiplications(made, node, env) for node, env in each(made, {"x": rows})] == [3 * 2 * places * 3 * 4 * 6]


@pytest.mark.parametrize("equation", ["ab,bc->ac", "...b,bc->...c"])
def test_a_sum_of_products_costs_what_it_sums_for_each_number(equation: str) -> None:
    modules = {"dense": ModuleSpec("EinsumDense", {"equation": equation, "shape": (4, 6)})}
    made = program(
        Node("y", "module", ("x",), {"module": "dense"}), modules=modules, **{"dense.weight": torch.ones(4, 6)}
    )
    assert counted(made, 2) == [2 * 4 * 6]


def test_what_is_large_or_not_to_be_told_is_infinite() -> None:
    made = program(Node("y", "einsum", ("x", "x"), {"equation": "ab,cb->ac"}))
    assert work_of(made, {"x": torch.ones(2, 4)}) == math.inf
    square = program(
        Node("w", "parameter", (), {"tensor": "w"}), Node("y", "matmul", ("x", "w")), w=torch.ones(4, 1000)
    )
    rows = int(SMALL / 4000)
    assert work_of(square, {"x": torch.ones(rows, 4)}) == pytest.approx(SMALL)
    assert work_of(square, {"x": torch.ones(rows + 1, 4)}) == math.inf


def test_rows_of_little_work_and_memory_run_in_larger_batches() -> None:
    assert Cost(1.0, 8.0).batch == 16 * BATCH
    assert Cost(10 * SMALL / 5000, 8.0).batch == 5000
    assert Cost(1.0, (256 << 20) / 3000).batch == 3000
    assert Cost(SMALL, 8.0).batch == Cost(1.0, 1e9).batch == UNKNOWN.batch == BATCH


def test_memory_is_that_of_what_is_computed() -> None:
    graph = Graph(
        (X,),
        (Node("w", "constant", (), {"tensor": "w"}), Node("y", "add", ("x", "w")), Node("z", "abs", ("y",))),
        {"y": "z"},
    )
    strings = np.array([b"abc", b""], object)
    values = {"x": torch.ones(9), "w": torch.ones(99), "y": torch.ones(3), "z": [torch.ones(2), (strings, None)]}
    assert memory_of(graph, values) == 12 + 8 + 2 * 8 + sum(map(sys.getsizeof, strings))
