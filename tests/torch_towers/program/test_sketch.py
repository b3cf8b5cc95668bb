"""What is known of the values of a tower that is not run: dtypes and shapes, and no more than is true."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.torch_towers.towers import DIM, ROWS, WORDS, id_tower, word_tower
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.program.program import Program
from torch_towers.program.sketch import UNKNOWN, Told, made_up, outputs, sketch

NAMES = {"word": "string", "size": "float32", "ids": "int64", "column": "float32"}


def sketched(program: Program, rows: int) -> dict[str, Any]:
    return sketch(program, {spec.name: made_up(spec, rows) for spec in program.graph.inputs})


def known(value: Any) -> Any:
    return (str(value.dtype)[6:], tuple(value.shape)) if isinstance(value, torch.Tensor) else tuple(value)


@pytest.mark.parametrize("rows", [1, 4])
def test_what_is_told_is_what_a_run_gives(rows: int) -> None:
    tower = word_tower()
    batch = {name: column[:rows] for name, column in ROWS.items()}
    ran = tower.trace(batch)
    for part, program in tower.parts.items():
        env = sketched(program, rows)
        for name, value in ran[part].items():
            if isinstance(value, torch.Tensor):
                assert known(env[name]) == known(value), name
        assert outputs(program, env).keys() == program.graph.outputs.keys()


def test_nothing_is_computed() -> None:
    env = sketched(word_tower().encoder, 10**12)
    assert env["out"].device.type == "meta"
    assert env["out"].shape == (10**12, DIM)


def test_strings_are_told() -> None:
    after = id_tower().parts["postprocess"]
    assert sketched(after, 3)["words"] == Told("string", (len(WORDS),))
    assert sketched(after, 3)["found"] == Told("string", (3,))


def test_what_nobody_foresees_is_unknown() -> None:
    """Which branch is taken, and what is made of its result."""
    specs = (TensorSpec("p", "bool", ()), TensorSpec("x", "float32", ("batch",)))
    side = Graph((specs[1],), (Node("y", "neg", ("x",)),), {"out": "y"})
    nodes = (Node("c", "cond", ("p", "x"), {"then_branch": side, "else_branch": side}), Node("z", "neg", ("c:0",)))
    env = sketched(Program(Graph(specs, nodes, {"out": "z"}), {}), 2)
    assert env["c"] is UNKNOWN
    assert env["z"] == UNKNOWN


def test_free_sizes_beside_rows_are_other_numbers() -> None:
    assert made_up(TensorSpec("x", "int64", ("batch", None, 3)), 2).shape == (2, 7, 3)
    assert made_up(TensorSpec("t", "string", ("batch",)), 2) == Told("string", (2,))
