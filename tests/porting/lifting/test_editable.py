"""Edits of a graph: a node keeps its name and position, its users follow, and dead nodes are removed."""

from __future__ import annotations

from porting.conversion.values import Value
from porting.lifting.editable import EditableGraph
from torch_towers.graph.graph import Graph, Node, TensorSpec

X = TensorSpec("x", "float32", (None, 4))


def editable(*nodes: Node, **outputs: str) -> EditableGraph:
    known = {name: Value(name, "float32", ("n", 4)) for name in ("x", *(node.name for node in nodes))}
    return EditableGraph(Graph((X,), nodes, outputs), known)


def chain() -> EditableGraph:
    """`out = tanh(neg(square(x)))`, and a second user of the square."""
    return editable(
        Node("a.square", "square", ("x",), {}),
        Node("a.neg", "neg", ("a.square",), {}),
        Node("a.out", "tanh", ("a.neg",), {}),
        Node("b", "exp", ("a.square",), {}),
        out="a.out",
        b="b",
    )


def test_a_rewritten_node_keeps_its_place_and_what_only_it_used_goes_with_the_sweep() -> None:
    view = chain()
    view.rewrite(view.nodes["a.out"], "relu", "x")
    assert list(view.nodes) == ["a.square", "a.neg", "a.out", "b"]  # until the sweep a rewrite may still look at them
    view.sweep()
    assert [(node.name, node.op, node.inputs) for node in view.graph().nodes] == [
        ("a.square", "square", ("x",)),  # `b` uses it
        ("a.out", "relu", ("x",)),
        ("b", "exp", ("a.square",)),
    ]
    assert [node.name for node in view.consumers("a.square")] == ["b"]


def test_outputs_and_checks_are_not_swept_nor_branches_that_hold_a_check() -> None:
    check = Node("inner", "check", ("x",), {})
    body, empty = Graph((X,), (check,), {"y": "x"}), Graph((X,), (), {"y": "x"})
    view = editable(
        Node("square", "square", ("x",), {}),
        Node("checked", "cond", (True, "square"), {"then_branch": body, "else_branch": empty}),
        Node("plain", "cond", (True, "square"), {"then_branch": empty, "else_branch": empty}),
        Node("sum", "add", ("checked", "plain"), {}),
        Node("out", "tanh", ("sum",), {}),
        out="out",
        square="square",
    )
    view.rewrite(view.nodes["out"], "relu", "x")
    view.sweep()
    assert list(view.nodes) == ["square", "checked", "out"]


def test_a_node_is_written_in_front_of_another_under_a_free_name() -> None:
    view = chain()
    name = view.before(view.nodes["a.out"], "square", "a.neg", known=("float32", ("n", 4)))
    assert name == "a.square_2"
    assert list(view.nodes) == ["a.square", "a.neg", "a.square_2", "a.out", "b"]
    assert view.shape(name) == ("n", 4)
    view.then(view.nodes["a.out"], "floor", known=("float32", ("n", 4)))
    assert [(n.name, n.op, n.inputs) for n in view.nodes.values()][3:5] == [
        ("a.tanh", "tanh", ("a.neg",)),
        ("a.out", "floor", ("a.tanh",)),
    ]


def test_an_alias_stands_for_the_node_everywhere_and_a_result_is_redirected_alone() -> None:
    view = chain()
    view.alias(view.nodes["a.square"], "x")
    view.sweep()
    assert view.nodes["a.neg"].inputs == view.nodes["b"].inputs == ("x",)
    assert "a.square" not in view.nodes
    view.alias(view.nodes["b"], "a.out")
    assert view.outputs["b"] == "a.out"
    assert view.is_output("a.out")

    split = editable(Node("s", "split", ("x",), {}), Node("u", "add", ("s:0", "s:1"), {}), out="u", last="s:1")
    split.redirect(split.nodes["s"], {"s:1": "x"})
    assert split.nodes["u"].inputs == ("s:0", "x")
    assert split.outputs["last"] == "x"


def test_a_size_that_settles_is_called_the_same_downstream() -> None:
    view = chain()
    view.known |= {"x": Value("x", "float32", ("n", 4)), "a.square": Value("a.square", "float32", ("?1", 4))}
    view.known["a.neg"] = Value("a.neg", "float32", ("?1", 4))
    view.settle("a.square", ("n", 4))
    assert view.shape("a.square") == view.shape("a.neg") == ("n", 4)
    view.know(view.nodes["a.neg"], "float64", (1,))
    assert view.dtype("a.neg") == "float32"  # what was known stays
    view.known["a.square"] = view.known["a.neg"] = Value("a.neg", "float32", None)
    view.know(view.nodes["a.square"], "float32", (3, 4))
    assert view.shape("a.neg") == (3, 4), "what follows is known too"
    view.learn(view.nodes["a.neg"], {"a.neg": ("float64", (1,))})
    assert (view.dtype("a.neg"), view.rank("a.neg")) == ("float64", 1)


def test_sorting_moves_a_node_behind_its_operands() -> None:
    view = chain()
    view.rewrite(view.nodes["a.neg"], "neg", "b")
    view.sort()
    assert list(view.nodes) == ["a.square", "b", "a.neg", "a.out"]
