"""A run keeps only what a later step or an output reads."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.program.liveness import forgetting
from torch_towers.program.program import Program

X = TensorSpec("x", "float32", (None, 4))


def chain(count: int, *more: Node, outputs: tuple[str, ...] = ()) -> Graph:
    """`x`, and `count` negatives of it, each of the one before: `n0`, `n1`, ..."""
    nodes = [Node(f"n{i}", "neg", ("x" if i == 0 else f"n{i - 1}",)) for i in range(count)]
    names = outputs or (nodes[-1].name,)
    return Graph((X,), (*nodes, *more), {name: name for name in names})


def alive(program: Program) -> list[int]:
    """How many values of the steps so far exist while each step runs."""
    values: list[weakref.ref[Tensor]] = []
    counts: list[int] = []

    def watched(run: Any) -> Any:
        def step(root: nn.Module, env: dict[str, Any]) -> Any:
            counts.append(sum(value() is not None for value in values))
            found = run(root, env)
            if isinstance(found, Tensor):
                values.append(weakref.ref(found))
            return found

        return step

    program._plan = tuple((name, watched(run)) for name, run in program._plan)
    program(x=torch.ones(2, 4))
    return counts


def test_values_die_after_their_last_reader() -> None:
    counts = alive(Program(chain(100), {}))
    assert max(counts) <= 10, "those of the last few steps"


def test_outputs_live_and_so_does_what_is_read_late() -> None:
    late = Node("late", "add", ("n99", "n3"))
    graph = chain(100, late, outputs=("late", "n50"))
    found = Program(graph, {})(x=torch.full((2, 4), 2.0))
    assert found["n50"].tolist() == [[-2.0] * 4] * 2
    assert found["late"].tolist() == [[4.0] * 4] * 2
    assert max(alive(Program(graph, {}))) <= 12


def test_a_short_plan_is_left_alone() -> None:
    plan = tuple((f"n{i}", lambda root, env: None) for i in range(8))
    assert forgetting(chain(8), plan) == plan


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=60), st.data())
def test_any_graph_gives_the_same(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    """Sums of any two values before, some of them outputs: what is forgotten is never read."""
    names = ["x"]
    nodes: list[Node] = []
    for i, (a, b) in enumerate(pairs):
        nodes.append(Node(f"n{i}", "maximum" if i % 3 else "sub", (names[a % len(names)], names[b % len(names)])))
        names.append(f"n{i}")
    outputs = data.draw(st.lists(st.sampled_from(names[1:]), min_size=1, unique=True))
    program = Program(Graph((X,), tuple(nodes), {name: name for name in outputs}), {})
    x = torch.arange(8.0).reshape(2, 4)
    values = program.values(x=x)
    for name, value in program(x=x).items():
        assert torch.equal(value, values[name])


@pytest.mark.parametrize("fused", [True, False])
def test_a_fused_step_falls_back_with_its_operands(fused: bool) -> None:
    """The nodes that a fused step absorbs are computed where it is: their operands live until then."""
    nodes = [
        Node("i", "cast", ("x",), {"dtype": "int64" if fused else "float64"}),
        Node("c", "cast", ("i",), {"dtype": "float32"}),
    ]
    nodes += [Node(f"n{i}", "neg", ("x" if i == 0 else f"n{i - 1}",)) for i in range(30)]
    nodes += [Node("scaled", "mul", ("c", 0.5)), Node("y", "add", ("scaled", "n29"))]
    program = Program(Graph((X,), tuple(nodes), {"y": "y"}), {})
    assert "c" not in dict(program._plan)
    assert program(x=torch.full((1, 4), 3.0))["y"].tolist() == [[4.5] * 4]
