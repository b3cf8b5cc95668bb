"""Names of modules: unique positions in the module tree."""

from __future__ import annotations

import torch

from porting.lifting.naming import layer_scope, with_constants_apart
from porting.lifting.view import View
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.program.program import Program

X = TensorSpec("x", "string", (None,))
LOOKUP = {"first_id": 1, "oov_id": 0}


def view(*names: str) -> View:
    """A graph of calls: `<name>.call` calls the module `names` stand for, beside a weight `dense.weight`."""
    calls = [Node(f"{name}.call", "module", ("x",), {"module": name}) for name in names]
    weight = Node("w", "parameter", (), {"tensor": "dense.weight"})
    modules = {name: ModuleSpec("StringLookup", {"vocabulary": f"{name}.vocabulary", **LOOKUP}) for name in names}
    store = {"dense.weight": torch.ones(1), **{f"{name}.vocabulary": name for name in names}}
    return View(Graph((X,), (weight, *calls), {}, modules), store, {})


def test_a_name_is_taken_by_a_module_and_by_a_weight_in_it() -> None:
    names = view("lookup").names
    assert names.free("lookup", {}) == "lookup_2"
    assert names.free("dense", {}) == "dense_2"
    assert names.free("dense", {"weight": "dense.weight"}) == "dense"
    assert names.free("dense.weight", {}) == "dense.weight_2"
    assert names.free("9 lives", {}) == "_9_lives"


def test_a_module_without_weights_is_called_after_the_layer_around_it() -> None:
    graph = view()
    root = Node("tower.norm_1.moments.truediv", "div", ("x",), {})
    assert graph.scope(root, "norm") == "tower.norm"
    assert graph.scope(Node("truediv", "div", ("x",), {}), "norm") == "norm"
    graph.modules["tower.norm"] = ModuleSpec("StringLookup", LOOKUP)
    assert graph.scope(root, "norm", suffix="_scale") == "tower.norm_scale"
    assert layer_scope(["a", "string_lookup", "None_Lookup"]) == ["a"]


def test_the_number_of_a_layer_is_not_that_of_its_call() -> None:
    def names(*scopes: str) -> list[str]:
        pools = [Node(f"{scope}.MaxPool", "max_pool", ("x",), {}) for scope in scopes]
        graph = View(Graph((X,), tuple(pools), {}, {}), {}, {})
        return [graph.scope(pool, "max_pool") for pool in pools]

    assert names("pool", "pool_1", "pool_2") == ["pool", "pool_1", "pool_2"], "as tf_keras calls them"
    assert names("pool_1", "pool_1_2", "pool_2_1") == ["pool", "pool_1", "pool_2"], "as Keras 3 calls the same"
    assert names("tower.pool_1", "pool.inner") == ["tower.pool", "pool.inner"]


def test_a_layer_beside_others_in_its_scope_is_named_by_its_kind() -> None:
    names = view().names
    assert names.of_layer("LayerNorm", {"weight": "tower.gamma"}, ["tower.dense"]) == "tower.gamma"
    assert names.of_layer("LayerNorm", {"weight": "tower.weight"}, ["tower.dense"]) == "tower.layer_norm"
    assert names.of_layer("LayerNorm", {"weight": "norm.weight"}, []) == "norm"
    assert names.of_layer("Linear", {"weight": "weight"}, []) == "linear"


def test_a_name_that_became_free_is_given_back_with_the_vocabulary() -> None:
    graph = view("lookup")
    name = graph.name("lookup", {"vocabulary": ""})
    assert name == "lookup_2"
    graph.store[f"{name}.vocabulary"] = graph.store.pop("lookup.vocabulary")
    args = {"vocabulary": f"{name}.vocabulary", **LOOKUP}
    graph.module(graph.nodes["lookup.call"], "StringLookup", name, args, "x")
    graph.names.give_back()
    assert graph.called_modules() == {"lookup"}
    assert graph.modules["lookup"].args["vocabulary"] == "lookup.vocabulary"
    assert graph.store["lookup.vocabulary"] == "lookup"


def test_what_takes_the_place_of_a_module_takes_its_name() -> None:
    graph = view("lookup")
    assert graph.name_in_place_of("lookup") == "lookup_2"  # it is still called
    graph.rewrite(graph.nodes["lookup.call"], "lower", "x")
    assert graph.name_in_place_of("lookup") == "lookup"


def test_a_constant_in_a_layer_is_not_called_as_an_attribute_of_it() -> None:
    """Also where it is used in the body of a branch; a constant in no layer keeps its name."""
    gru = ModuleSpec("GRU", {"input_size": 2, "hidden_size": 2, "bias": False})
    names = ("gru.cell.one", "gru.run", "gru.mine.one", "cell.one")
    constants = tuple(Node(name, "constant", (), {"tensor": name}) for name in names)
    inner = Graph((), constants[:1], {"out": "gru.cell.one"}, {})
    branch = Node("if", "cond", ("on",), {"then_branch": inner, "else_branch": inner})
    call = Node("gru", "module", ("x",), {"module": "gru"})
    inputs = TensorSpec("x", "float32", (None, None, 2)), TensorSpec("on", "bool", ())
    graph = Graph(inputs, (*constants, call, branch), {"y": "gru", "run": "gru.run", "chosen": "if:0"}, {"gru": gru})
    store = {name: torch.full((), float(i)) for i, name in enumerate(names)}
    store |= {f"gru.weight_{part}": torch.zeros(6, 2) for part in ("ih", "hh")}
    apart, stored = with_constants_apart(graph, store)
    assert stored.keys() - store.keys() == {"gru.cell_.one", "gru.run_"}
    assert store.keys() - stored.keys() == {"gru.cell.one", "gru.run"}
    found = Program(apart, stored)(x=torch.zeros(1, 1, 2), on=torch.tensor(True))
    assert (found["run"].item(), found["chosen"].item()) == (1.0, 0.0)
