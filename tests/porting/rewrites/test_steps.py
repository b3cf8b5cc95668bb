"""What a graph does with each step of a sequence is done once, with all steps; near misses stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.porting.rewrites.conftest import Exported
from tests.witness import to_runtime

Get = Callable[[str], Exported]
ONCE = {
    "each.dense": "Linear", "normed.norm": "LayerNorm",
    "picture.conv": "Conv2d", "picture.norm": "BatchNorm", "picture.out": "Linear",
}  # fmt: skip
STAY = ("of_rows", "of_first", "unequal", "two_of_three", "other_weights")


def batch(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "s": rng.normal(0, 1, (rows, 3, 6)).astype(np.float32),
        "frames": rng.normal(0, 1, (rows, 3, 5, 5, 2)).astype(np.float32),
    }


def test_layers_are_called_once(exported: Get) -> None:
    graph = exported("stepwise").lifted.graph
    calls = [str(node.attrs["module"]) for node in graph.nodes if node.op == "module"]
    assert {name: graph.modules[name].type for name in calls if name in ONCE} == ONCE
    assert all(calls.count(name) == 1 for name in calls)


@pytest.mark.parametrize("output", STAY)
def test_near_misses_stay(exported: Get, output: str) -> None:
    """Nodes that mix rows, take one step everywhere, differ, leave out a step, or have other weights."""
    model = exported("stepwise")
    assert model.kind(output) == "stack"


def test_all_others_are_whole(exported: Get) -> None:
    assert exported("stepwise").lifted.remaining["stack"] == len(STAY)


def test_numbers(exported: Get) -> None:
    for rows in (1, 4):
        exported("stepwise").check(batch(rows))


def test_gradients(exported: Get) -> None:
    exported("stepwise").check_gradients(batch(4))


def test_export_with_free_rows(exported: Get) -> None:
    program = exported("stepwise").program
    given = {name: to_runtime(value) for name, value in batch(4).items()}
    free = {name: {0: torch.export.Dim.DYNAMIC} for name in given}
    with torch.no_grad():
        whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
        other = {name: to_runtime(value) for name, value in batch(7).items()}
        for name, value in program(**other).items():
            torch.testing.assert_close(whole(**other)[name], value, rtol=1e-5, atol=1e-6)  # float32 in another order
