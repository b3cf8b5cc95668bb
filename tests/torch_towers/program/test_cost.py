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
    sizes = (7, *[1] * (len(kernel) - 1), 4)
    x = TensorSpec("x", "float32", ("batch", *sizes))
    graph = Graph(
        (x,), (Node("y", "module", ("x", 9) if back else ("x",), {"module": "conv"}),), {"y": "y"}, {"conv": spec}
    )
    made = Program(graph, {"conv.weight": torch.ones(4, 6, *kernel) if back else torch.ones(6, 4, *kernel)})
    rows = torch.ones(2, *sizes)
    assert [multiplications(made, node, env) for node, env in each(made, {"x": rows})] == [3 * 2 * places * 3 * 4 * 6]


@pytest.mark.parametrize("equation", ["ab,bc->ac", "...b,bc->...c"])
def test_a_sum_of_products_costs_what_it_sums_for_each_number(equation: str) -> None:
    modules = {"dense": ModuleSpec("EinsumDense", {"equation": equation, "shape": (4, 6)})}
    made = program(
        Node("y", "module", ("x",), {"module": "dense"}), modules=modules, **{"dense.weight": torch.ones(4, 6)}
    )
    assert counted(made, 2) == [2 * 4 * 6]


@pytest.mark.parametrize("equation", ["ab,bc->ac", "...b,bc->...c", "ab, bc -> ac"])
def test_an_einsum_costs_what_it_sums_for_each_number(equation: str) -> None:
    w = Node("w", "parameter", (), {"tensor": "w"})
    made = program(w, Node("y", "einsum", ("x", "w"), {"equation": equation}), w=torch.ones(4, 6))
    assert counted(made, 2) == [0.0, 2 * 4 * 6]


@pytest.mark.parametrize(("depthwise", "outputs"), [(False, 6), (True, 24)])
def test_a_convolution_of_a_weight_costs_as_its_layer(depthwise: bool, outputs: int) -> None:
    x = TensorSpec("x", "float32", ("batch", 7, 4))
    attrs = {"strides": (1,), "padding": "VALID", "dilations": (1,), "channels_last": True, "depthwise": depthwise}
    nodes = (Node("w", "parameter", (), {"tensor": "w"}), Node("y", "conv", ("x", "w"), attrs))
    made = Program(Graph((x,), nodes, {"y": "y"}), {"w": torch.ones(3, 4, 6)})
    found = [multiplications(made, node, env) for node, env in each(made, {"x": torch.ones(2, 7, 4)})]
    assert found == [0.0, 3 * 2 * 5 * outputs * 3 * (1 if depthwise else 4)]


def test_a_layer_of_one_of_several_results() -> None:
    modules = {"dense": ModuleSpec("EinsumDense", {"equation": "ab,bc->ac", "shape": (2, 6)})}
    halves = Node("halves", "chunk", ("x",), {"num": 2, "axis": 1})
    made = program(
        halves,
        Node("y", "module", ("halves:1",), {"module": "dense"}),
        modules=modules,
        **{"dense.weight": torch.ones(2, 6)},
    )
    assert counted(made, 3) == [0.0, 3 * 2 * 6]


@torch.inference_mode()
def test_what_a_branch_computes_is_counted() -> None:
    """A product and a sum with the result."""
    inner = (Node("t", "matrix_transpose", ("x",)), Node("p", "matmul", ("x", "t")), Node("s", "add", ("p", 1.0)))
    then, other = Graph((X,), inner, {"out": "s"}), Graph((X,), (), {"out": "x"})
    made = program(Node("y", "cond", (True, "x"), {"then_branch": then, "else_branch": other}))
    assert work_of(made, {"x": torch.ones(3, 4)}) >= 3 * 3 * 4 + 8 * 3 * 3
    assert work_of(made, {"x": torch.ones(6, 4)}) > 2 * work_of(made, {"x": torch.ones(3, 4)})


def test_what_is_large_is_infinite() -> None:
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
