"""Repeated blocks are found in any node order, and shown once with their count only if they are equal."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.graph.spec import TowerSpec
from torch_towers.program.blocks import repeats
from torch_towers.program.listing import listing
from torch_towers.program.program import Program, used_names
from torch_towers.tower import Tower

X = TensorSpec("x", "float32", ("batch", 4))


def stack(count: int, *, scoped: bool = True, other: int = -1, interleaved: bool = False) -> Graph:
    """`x = norm(x + second(relu(first(x))))`, `count` times, between two layers; block `other` is wider inside."""
    modules = {"before": ModuleSpec("Linear", {"in_features": 4, "out_features": 4})}
    modules["behind"] = ModuleSpec("Linear", {"in_features": 4, "out_features": 2})
    nodes = [Node("before", "module", ("x",), {"module": "before"}), Node("mask", "sigmoid", ("x",))]
    x = "before"
    for k in range(count):
        wide = 6 if k == other else 5
        first, second, norm = (f"block_{k}.{part}" if scoped else f"{part}_{k}" for part in ("first", "second", "norm"))
        modules[first] = ModuleSpec("Linear", {"in_features": 4, "out_features": wide})
        modules[second] = ModuleSpec("Linear", {"in_features": wide, "out_features": 4, "bias": False})
        modules[norm] = ModuleSpec("LayerNorm", {"normalized_shape": (4,), "eps": 1e-6})
        nodes += [
            Node(first, "module", (x,), {"module": first}), Node(f"relu_{k}", "relu", (first,)),
            Node(second, "module", (f"relu_{k}",), {"module": second}), Node(f"scaled_{k}", "mul", (second, "mask")),
            Node(f"sum_{k}", "add", (x, f"scaled_{k}")), Node(norm, "module", (f"sum_{k}",), {"module": norm}),
        ]  # fmt: skip
        x = norm
    nodes.append(Node("behind", "module", (x,), {"module": "behind"}))
    if interleaved:
        nodes.insert(len(nodes) // 2, nodes.pop(1) if count < 3 else Node("late", "neg", ("x",)))
    outputs = {"y": "behind"} | ({"late": "late"} if interleaved and count >= 3 else {})
    return Graph((X,), tuple(nodes), outputs, modules)


def program(graph: Graph) -> Program:
    def weight(name: str) -> Tensor:
        owner, _, part = name.rpartition(".")
        args = graph.modules[owner].args
        features = args.get("normalized_shape") or (args["out_features"],)
        return (
            torch.ones(*features, args["in_features"])
            if part == "weight" and "in_features" in args
            else torch.ones(features)
        )

    return Program(graph, {name: weight(name) for name in used_names(graph)})


def test_blocks_and_what_they_pass_on() -> None:
    (found,) = repeats(stack(5))
    assert found.layers(stack(5)) == tuple(
        (f"block_{k}.first", f"block_{k}.second", f"block_{k}.norm") for k in range(5)
    )
    assert found.carries == (("before", "block_0.norm"),) and found.shared == ("mask",)


def test_names_without_scopes_and_nodes_between() -> None:
    (found,) = repeats(stack(4, scoped=False, interleaved=True))
    assert found.layers(stack(4, scoped=False))[3] == ("first_3", "second_3", "norm_3")


def test_a_block_that_differs_is_none_of_them() -> None:
    found = repeats(stack(5, other=2))
    assert [[block[0] for block in repeat.blocks] for repeat in found] == [
        ["block_0.first", "block_1.first"],
        ["block_3.first", "block_4.first"],
    ]
    assert repeats(stack(1)) == () and repeats(stack(2, other=1)) == ()


def test_a_block_that_takes_something_else_is_none_of_them() -> None:
    graph = stack(4)
    nodes = tuple(Node(n.name, n.op, ("before", n.inputs[1]), n.attrs) if n.name == "sum_3" else n for n in graph.nodes)
    (found,) = repeats(Graph(graph.inputs, nodes, graph.outputs, graph.modules))
    assert len(found.blocks) == 3


def test_print_shows_a_block_once() -> None:
    shown = str(program(stack(12)))
    assert "(block_0 ... block_11): 12 x Module(" in shown and shown.count("LayerNorm(") == 1
    assert "(behind): Linear(in_features=4, out_features=2, bias=True)" in shown
    assert "(norm_0 ... norm_11): 12 x LayerNorm(" in str(program(stack(12, scoped=False)))


def test_print_shows_a_layer_that_was_swapped() -> None:
    built = program(stack(3))
    built.get_submodule("block_1").second = torch.nn.Identity()
    shown = str(built)
    assert "(second): Identity()" in shown and "(block_0 ... block_2)" in shown


def test_names_of_weights_stay() -> None:
    assert "block_11.first.weight" in program(stack(12)).state_dict()


def test_listing_shows_a_block_once() -> None:
    graph = stack(12)
    built = program(graph)
    spec = TowerSpec(
        Graph((X,), (), {"x": "x"}), graph, None, (X,), (TensorSpec("y", "float32", ("batch", 2)),), "y", {}
    )
    text = listing(Tower(spec, built.state_dict()))
    assert (
        "x 12, each on block_0.norm of the previous one, the first on before; the last one gives block_11.norm:" in text
    )
    assert text.count("LayerNorm(") == 1 and "block_5" not in text
