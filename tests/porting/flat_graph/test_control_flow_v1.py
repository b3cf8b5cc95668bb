"""TF1 control flow as If and While nodes: the structure by hand, and what TensorFlow answers of the same graphs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.errors import CorruptModelError
from porting.flat_graph.control_flow_v1 import functionalize
from tests.porting.test_tf1 import X, check, save, v1
from tests.witness import tf
from torch_towers.errors import InputError
from torch_towers.graph.graph import Graph, Node

BRANCH = (
    Node("x", "Placeholder"),
    Node("p", "Placeholder"),
    Node("cond/Switch", "Switch", ("x", "p")),
    Node("cond/no", "Neg", ("cond/Switch:output_false:0",)),
    Node("cond/yes", "Abs", ("cond/Switch:output_true:0",)),
    Node("cond/Merge", "Merge", ("cond/no", "cond/yes")),
)


def loop(depth: int, start: str = "x", limit: str = "limit", scope: str = "") -> tuple[list[Node], str]:
    """`while y < ten: y = ...`, `depth` loops in one another with a square in the midst, each with an assertion in its body."""
    if not depth:
        return [Node(f"{scope}square", "Square", (start,))], f"{scope}square"
    inner, following = loop(depth - 1, f"{scope}Switch:1", f"{scope}ten", f"{scope}while/")
    outer = [
        Node(f"{scope}Enter", "Enter", (start,)),
        Node(f"{scope}ten", "Enter", (limit,)),
        Node(f"{scope}Merge", "Merge", (f"{scope}Enter", f"{scope}Next")),
        Node(f"{scope}Less", "Less", (f"{scope}Merge", f"{scope}ten")),
        Node(f"{scope}LoopCond", "LoopCond", (f"{scope}Less",)),
        Node(f"{scope}Switch", "Switch", (f"{scope}Merge", f"{scope}LoopCond")),
        Node(f"{scope}Assert", "Assert", (following,)),
        Node(f"{scope}Next", "NextIteration", (following,)),
        Node(f"{scope}Exit", "Exit", (f"{scope}Switch",)),
    ]
    return [*outer, *inner], f"{scope}Exit"


def lowered(nodes: Iterable[Node], output: str, effects: Iterable[str] = ()) -> tuple[dict[str, Node], str, list[str]]:
    found, outputs, left = functionalize({node.name: node for node in nodes}, {"y": output}, effects)
    return found, outputs["y"], left


@pytest.mark.parametrize("nodes", itertools.islice(itertools.permutations(BRANCH), 0, None, 97))
def test_a_branch(nodes: tuple[Node, ...]) -> None:
    """In whatever order the nodes stand."""
    found, output, _ = lowered(nodes, "cond/Merge")
    branch = found[output.partition(":")[0]]
    assert (branch.op, branch.inputs) == ("If", ("p", "x"))
    sides = {name: [(n.op, n.inputs) for n in branch.attrs[name].nodes] for name in ("then_branch", "else_branch")}
    assert sides == {"then_branch": [("Abs", ("operand_0",))], "else_branch": [("Neg", ("operand_0",))]}


def test_which_side_ran() -> None:
    found, output, _ = lowered([*BRANCH, Node("side", "Identity", ("cond/Merge:value_index:0",))], "side")
    (index,) = found[output].inputs
    assert (found[index].op, found[index].inputs) == ("BranchIndex", ("p",))


def test_a_constant_predicate_leaves_one_side() -> None:
    known = [Node("p", "Const", (), {"value": np.array(True)}), *(node for node in BRANCH if node.name != "p")]
    found, output, effects = lowered([*known, Node("check", "Assert", ("cond/no",))], "cond/Merge", ["check"])
    assert output == "cond/yes"
    assert found["cond/yes"].inputs == ("x",)
    assert "cond/no" not in found
    assert effects == []  # it never runs


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_loops_in_loops(depth: int, backwards: bool) -> None:
    """Each While holds the next, and the assertion of its own body: none is lost, and none stays outside."""
    nodes, output = loop(depth)
    nodes += [Node("x", "Placeholder"), Node("limit", "Const")]
    nodes = nodes[::-1] if backwards else nodes
    found, output, effects = lowered(nodes, output, [node.name for node in nodes if node.op == "Assert"])
    assert effects == []
    graph: Any = Graph((), tuple(found.values()), {"y": output})
    for _ in range(depth):
        node = next(node for node in graph.nodes if node.name == next(iter(graph.outputs.values())).partition(":")[0])
        assert node.op == "While"
        assert [inner.op for inner in node.attrs["cond"].nodes] == ["Less"]
        graph = node.attrs["body"]
        assert [inner.op for inner in graph.nodes].count("Assert") == 1
    assert [node.op for node in graph.nodes if node.op != "Assert"] == ["Square"]


def test_what_an_assertion_in_a_loop_reads_is_replaced_before_the_loop() -> None:
    """A branch that nothing but an assertion reads, whichever of them stands first."""
    nodes, output = loop(1)
    nodes = [node for node in nodes if node.name != "Assert"]
    nodes += [
        Node("x", "Placeholder"), Node("limit", "Const"), Node("outer_p", "Placeholder"), Node("p", "Enter", ("outer_p",)),
        Node("cond/Switch", "Switch", ("Switch:1", "p")), Node("cond/no", "Neg", ("cond/Switch",)),
        Node("cond/yes", "Abs", ("cond/Switch:1",)), Node("cond/Merge", "Merge", ("cond/no", "cond/yes")),
        Node("Assert", "Assert", ("cond/Merge",)),
    ]  # fmt: skip
    for order in (nodes, nodes[::-1]):
        found, _, effects = lowered(order, output, ["Assert"])
        assert effects == []
        assert sorted(node.op for node in found["LoopCond/While"].attrs["body"].nodes) == ["Assert", "If", "Square"]


def test_deep_branches_take_no_recursion() -> None:
    nodes, last, scope = [Node("x", "Placeholder")], "x", ""
    for i in range(600):
        scope += "c/"
        nodes += [
            Node(f"p{i}", "Placeholder"),
            Node(f"{scope}Switch", "Switch", (last, f"p{i}")),
            Node(f"{scope}no", "Neg", (f"{scope}Switch",)),
        ]
        last = f"{scope}Switch:1"
    while scope:
        nodes.append(Node(f"{scope}Merge", "Merge", (f"{scope}no", last)))
        last, scope = f"{scope}Merge", scope[:-2]
    found, output, _ = lowered(nodes, "c/Merge")
    assert found[output.partition(":")[0]].op == "If"


@pytest.mark.parametrize(
    ("nodes", "output", "message"),
    [
        ([Node("x", "Placeholder"), Node("e", "Exit", ("x",))], "e", "leaves no loop"),
        ([*BRANCH[:4], Node("m", "Merge", ("cond/no",))], "m", "joins 1 values"),
        ([Node("x", "Placeholder"), Node("m", "Merge", ("x", "x"))], "m", "come from no Switch"),
        (
            [
                *BRANCH[:4],
                Node("a", "AddV2", ("b", "cond/Switch:1")),
                Node("b", "Neg", ("a",)),
                Node("m", "Merge", ("cond/no", "a")),
            ],
            "m",
            "reads its own result",
        ),
        (
            [
                Node("x", "Placeholder"),
                Node("c", "LoopCond", ("x",)),
                Node("i", "Identity", ("x",)),
                Node("s", "Switch", ("i", "c")),
                Node("e", "Exit", ("s",)),
            ],
            "e",
            "begins no loop",
        ),
    ],
)
def test_damaged(nodes: list[Node], output: str, message: str) -> None:
    with pytest.raises(CorruptModelError, match=message):
        lowered(nodes, output)


def checked_loops() -> Any:
    """A loop in a loop, with a branch and an assertion in the inner one."""
    x = v1.placeholder(tf.float32, [None, 3], "x")

    def inner(j: Any, y: Any) -> Any:
        with tf.control_dependencies([tf.debugging.assert_less(y, 1e6, message="too large")]):
            return j + 1, tf.cond(tf.equal(j % 2, 0), lambda: y * 3.0, lambda: tf.identity(y) + 1.0)

    def outer(i: Any, y: Any) -> Any:
        _, y = tf.while_loop(lambda j, _: j < i, inner, [0, y])
        return i + 1, y / 2.0

    _, y = tf.while_loop(lambda i, _: i < 4, outer, [0, x])
    return {"x": x}, {"y": y}


def test_an_assertion_inside_of_loops_is_tensorflows(tmp_path: Path) -> None:
    answer = save(tmp_path / "m", checked_loops)
    ported = check(tmp_path / "m", answer, {"x": X}, {"x": X[:1]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        answer(x=X * 1e6)
    with pytest.raises(InputError, match="too large"):
        ported.tower()({"x": X * 1e6})
