"""Nodes as calls: operands, literals, bodies, and paths in the module tree."""

from __future__ import annotations

import pytest
import torch

from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.graph.registry import MODULES
from torch_towers.program.binding import descend, getter, is_layer, is_stored, path
from torch_towers.program.program import Program, stored_names

X = TensorSpec("x", "float32", ("batch", 2))


def weight(name: str) -> Program:
    """`x @ weight`, the weight under any name."""
    nodes = (Node("w", "parameter", (), {"tensor": name}), Node("y", "matmul", ("x", "w")))
    return Program(Graph((X,), nodes, {"y": "y"}), {name: torch.eye(2)})


def _is_a_patch(value: object) -> bool:
    """Whether another library added it to torch's class; transformers adds `smart_apply` with its first model."""
    module: str | None = getattr(value, "__module__", None)  # None: a plain value
    return module is not None and module.partition(".")[0] != "torch"


def test_a_weight_may_have_the_name_of_any_attribute() -> None:
    program = weight("w")
    taken = {name for name in {*dir(program), *vars(program)} if not name.startswith("__")} - {"w"}
    taken -= {name for name, value in vars(torch.nn.Module).items() if _is_a_patch(value)}
    assert taken and [name for name in taken if path(name) != [f"{name}_"]] == []
    for name in ("values", "steps", "outputs_of", "type", "graph.kernel"):
        program = weight(name)
        assert list(program.tensors()) == [name]
        assert list(program.state_dict()) == [".".join(path(name))]
        assert program(x=torch.ones(1, 2))["y"].tolist() == [[1.0, 1.0]]


def test_only_the_root_has_the_attributes_of_a_program() -> None:
    assert path("query.values.type.weight") == ["query", "values", "type_", "weight"]


def test_operands() -> None:
    env = {"a": 1, "pair": (2, 3)}
    assert getter("a")(env) == 1
    assert getter("pair:1")(env) == 3
    assert getter(("a", ("pair:0", 7)))(env) == (1, (2, 7))
    assert getter(0.5)(env) == 0.5


def test_descend() -> None:
    root = torch.nn.ModuleDict({"a": torch.nn.ModuleDict({"b": torch.nn.Linear(1, 1)})})
    assert descend(root, ["a", "b"]) is root["a"]["b"]  # type: ignore[index]


@pytest.mark.parametrize(
    "spec, names",
    [
        (ModuleSpec("Linear", {"in_features": 2, "out_features": 3}), ["dense.weight", "dense.bias"]),
        (ModuleSpec("Hashing", {"num_bins": 3}), []),
        (ModuleSpec("CategoryEncoding", {"num_tokens": 3, "output_mode": "count"}), []),
        (ModuleSpec("TextVectorization", {"vocabulary": "words", "first_id": 2, "oov_id": 1, "lowercase": "ascii"}), ["words"]),
    ],
)  # fmt: skip
def test_the_names_that_a_module_stores(spec: ModuleSpec, names: list[str]) -> None:
    assert stored_names("dense", spec) == names
    entry = MODULES[spec.type]
    assert is_layer(entry) or [value for key, value in spec.args.items() if is_stored(entry, key, value)] == names


def test_a_text_of_a_closed_list_names_no_tensor() -> None:
    """The padding of a convolution is "SAME" or margins, by its annotation."""
    assert not is_stored(MODULES["Conv2d"], "padding", "SAME")
    assert is_stored(MODULES["TextVectorization"], "vocabulary", "words")
