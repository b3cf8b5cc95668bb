"""Rows that depend on no other run in parts, with the numbers of the whole; any other graph, or observer, gets the whole."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.torch_towers.ops.test_dtypes import CALLS
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.program import rows
from torch_towers.program.program import Program
from torch_towers.program.rows import ALL, MANY, RowParts, memory_of, part_of


def graph(*nodes: Node, inputs: tuple[TensorSpec, ...] | None = None, **modules: ModuleSpec) -> Graph:
    """A graph of these nodes, by default of `x`, rows of four numbers; the last node is its output."""
    given = inputs or (TensorSpec("x", "float32", (None, 4)),)
    return Graph(given, nodes, {"y": nodes[-1].name}, modules)


X = torch.linspace(-2, 2, 4 * MANY).reshape(MANY, 4)


def apart(*nodes: Node) -> bool:
    """Whether the rows of `x` do not meet in these nodes."""
    return memory_of(Program(graph(*nodes), {}), {"x": X}) is not None


def is_data(operands: tuple[Any, ...], attrs: dict[str, Any]) -> bool:
    """Whether a call can be a node: no lists among its operands, no functions among its attributes."""
    plain = all(isinstance(operand, (Tensor, int, float, bool, type(None))) for operand in operands)
    return plain and not any(map(callable, attrs.values()))


@pytest.mark.parametrize("number", [i for i, (_, operands, attrs) in enumerate(CALLS) if is_data(operands, attrs)])
def test_what_is_said_of_an_op_is_so(number: int) -> None:
    """Each call of the table of ops, each of its tensors as rows or as shared: where its rows are said not to meet, each has the same
    result alone."""
    name, operands, attrs = CALLS[number]
    tensors = {f"x{i}": operand for i, operand in enumerate(operands) if isinstance(operand, Tensor)}
    refs = tuple(f"x{i}" if f"x{i}" in tensors else operand for i, operand in enumerate(operands))
    for by_row in product((True, False), repeat=len(tensors)):
        free = {
            name: value
            for (name, value), is_free in zip(tensors.items(), by_row, strict=True)
            if is_free and value.ndim
        }
        specs = tuple(
            TensorSpec(name, "float32", (None if name in free else len(x), *x.shape[1:]) if x.ndim else ())
            for name, x in tensors.items()
        )
        if not free or len({len(value) for value in free.values()}) > 1:
            continue
        program = Program(graph(Node("y", name, refs, attrs), inputs=specs), {})
        if memory_of(program, tensors) is None:
            continue
        whole = program(**tensors)["y"]
        for i in range(len(next(iter(free.values())))):
            alone = program(**tensors | {name: value[i : i + 1] for name, value in free.items()})["y"]
            for one, all_of_them in zip(*(x if isinstance(x, tuple) else (x,) for x in (alone, whole)), strict=True):
                torch.testing.assert_close(one, all_of_them[i : i + 1], equal_nan=True)


@pytest.mark.parametrize(
    "node",
    [
        Node("y", "reduce_mean", ("x",), {"axes": (0,)}), Node("y", "reduce_max", ("x",), {"axes": (-2, 1), "keepdim": True}),
        Node("y", "cumsum", ("x",), {"axis": 0}), Node("y", "flip", ("x",), {"axes": (0,)}),
        Node("y", "transpose", ("x",), {"perm": (1, 0)}), Node("y", "matrix_transpose", ("x",)),
        Node("y", "reshape", ("x", 2, -1)), Node("y", "reshape", ("x", -1, 2)), Node("y", "reshape", ("x", -1)),
        Node("y", "concat", ("x", "x"), {"axis": 0}), Node("y", "stack", ("x", "x"), {"axis": 0}),
        Node("y", "unsqueeze", ("x",), {"axis": 0}), Node("y", "slice", ("x", 0, 2), {"axis": 0}),
        Node("y", "size", ("x",), {"axis": 0}), Node("y", "pad", ("x", 0.0, 1, 0, 0, 0)),
        Node("y", "batch_statistics", ("x",), {"axis": 1}),
    ],
)  # fmt: skip
def test_rows_that_meet(node: Node) -> None:
    assert not apart(node)


def test_rows_that_meet_in_two_steps() -> None:
    """A matrix of all rows, a row less the average of all, and a number divided by how many rows there are."""
    turned = Node("turned", "matrix_transpose", ("x",))
    assert not apart(turned, Node("y", "matmul", ("x", "turned")))
    mean = Node("mean", "reduce_mean", ("x",), {"axes": (0,), "keepdim": True})
    assert not apart(mean, Node("y", "sub", ("x", "mean")))
    count = Node("count", "size", ("x",), {"axis": 0})
    many = Node("many", "sizes_tensor", ("count",), {"dtype": "float32", "scalar": True})
    assert not apart(count, many, Node("y", "div", ("x", "many")))
    assert apart(count, Node("y", "reshape", ("x", "count", 2, 2))), "a shape may name their number"
    assert apart(count, Node("y", "broadcast_to", ("x", "count", 4)))


def wide() -> Program:
    """Rows of four numbers, times 100,000 weights that are all ones, and the sum."""
    nodes = (
        Node("w", "parameter", (), {"tensor": "w"}), Node("z", "matmul", ("x", "w")), Node("y", "reduce_sum", ("z",), {"axes": (1,)}),
    )  # fmt: skip
    return Program(graph(*nodes), {"w": torch.ones(4, 100_000)})


def calls(program: Program, inputs: dict[str, Any]) -> tuple[list[int], Any]:
    """How many rows each run of `z` had, and the output."""
    seen: list[int] = []
    run = dict(program._plan)["z"]

    def counted(root: nn.Module, env: dict[str, Any]) -> Any:
        seen.append(len(env["x"]))
        return run(root, env)

    program._plan = tuple((name, counted if name == "z" else step) for name, step in program._plan)
    return seen, RowParts(program.graph)(program, inputs)["y"]


@torch.no_grad()
def test_a_large_batch_runs_in_parts() -> None:
    assert part_of(wide(), {"x": X}) == rows.PART // 400_000 == 62
    seen, found = calls(wide(), {"x": X})
    assert seen == [42, 43, 43], "parts of nearly the same size"
    torch.testing.assert_close(found, X.sum(1) * 100_000)
    assert calls(wide(), {"x": X[: MANY - 1]})[0] == [MANY - 1], "few rows are not worth the question"


@torch.no_grad()
def test_each_part_is_worth_reading_the_weights() -> None:
    nodes = (Node("h", "module", ("x",), {"module": "h"}), Node("y", "reduce_sum", ("h",), {"axes": (1,)}))
    spec = ModuleSpec("Linear", {"in_features": 4, "out_features": 2_000_000, "bias": False})
    program = Program(graph(*nodes, h=spec), {"h.weight": torch.zeros(2_000_000, 4)})
    assert part_of(program, {"x": X}) == 4, "32 MB of weights, 8 MB a row"


@torch.no_grad()
def test_each_part_is_worth_what_is_computed_from_weights_alone() -> None:
    """The squares of 40 MB of weights, for rows that take 0.4 MB."""
    nodes = (
        Node("w", "parameter", (), {"tensor": "w"}), Node("v", "parameter", (), {"tensor": "v"}),
        Node("squares", "square", ("v",)), Node("total", "reduce_sum", ("squares",), {"axes": (0,)}),
        Node("z", "matmul", ("x", "w")), Node("s", "reduce_sum", ("z",), {"axes": (1,), "keepdim": True}),
        Node("y", "add", ("s", "total")),
    )  # fmt: skip
    program = Program(
        graph(*nodes), {"w": torch.ones(4, 100_000), "v": torch.ones(10_000_000)}, frozen=frozenset({"v", "w"})
    )
    assert part_of(program, {"x": X}) == (40_000_004 // 400_000) == 100


@torch.no_grad()
def test_outputs_that_are_the_largest_values_are_not_parted() -> None:
    """Then parts would be joined by copying most of what was computed."""
    program = Program(graph(Node("z", "square", ("x",)), Node("y", "neg", ("z",))), {})
    assert part_of(program, {"x": X}) == ALL


def test_whoever_could_see_it_gets_the_whole() -> None:
    program, given = wide(), {"x": X}
    with torch.enable_grad():
        assert calls(program, given)[0] == [MANY]
    with torch.no_grad():
        program = wide()
        program.register_forward_hook(lambda module, args, output: None)
        assert calls(program, given)[0] == [MANY]
        assert calls(wide().train(), given)[0] == [MANY]
        assert calls(wide().to(torch.float64), {"x": X.double()})[0] != [MANY], "another precision is no observer"


@torch.no_grad()
def test_lists_of_tensors_get_the_whole() -> None:
    inputs = (TensorSpec("x", "float32", (None, 4)), TensorSpec("items", "variant", ()))
    sizes = Node("count", "list_length", ("items",))
    program = Program(graph(sizes, Node("y", "mul", ("x", "count")), inputs=inputs), {})
    assert RowParts(program.graph)(program, {"x": X, "items": [X, X]})["y"].tolist() == (X * 2).tolist()


@torch.no_grad()
def test_a_swapped_layer_gets_the_whole() -> None:
    nodes = (Node("h", "module", ("x",), {"module": "h"}), Node("y", "reduce_sum", ("h",), {"axes": (1,)}))
    spec = ModuleSpec("Linear", {"in_features": 4, "out_features": 100_000, "bias": False})
    seen: list[int] = []

    class Counted(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            seen.append(len(input))
            return super().forward(input)

    program = Program(graph(*nodes, h=spec), {"h.weight": torch.ones(100_000, 4)})
    program.h = Counted(4, 100_000)
    RowParts(program.graph)(program, {"x": X})
    assert seen == [MANY]
