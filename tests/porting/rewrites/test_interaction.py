"""DotInteraction of TensorFlow Recommenders becomes a layer of that name, and Cross a Linear between two ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.porting.rewrites.by_hand import layer, lifted, ops
from tests.porting.rewrites.conftest import Exported
from tests.witness import to_runtime

pytest.importorskip("tensorflow_recommenders")
Get = Callable[[str], Exported]
DOTS = {
    "pairs": {"self_interaction": False},
    "selves": {"self_interaction": True},
    "matrix": {"self_interaction": False, "skip_gather": True},
    "matrix_selves": {"self_interaction": True, "skip_gather": True},
}


def batch(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows)
    return {
        "x": rng.normal(0, 2, (rows, 8)).astype(np.float32),
        "ids": rng.integers(0, 10, (rows, 3)).astype(np.int32),
    }


def test_each_is_one_layer_under_its_name(exported: Get) -> None:
    model = exported("interactions")
    modules = model.lifted.graph.modules
    assert {name: dict(modules[name].args) for name in DOTS} == DOTS
    assert {modules[name].type for name in DOTS} == {"DotInteraction"}
    crosses = {"full", "low", "scaled", "active", "bare", "low_scaled", "second"}
    kinds = {name: spec.type for name, spec in modules.items() if name.partition(".")[0] in crosses}
    assert set(kinds.values()) == {"Linear"} and {name.partition(".")[0] for name in kinds} == crosses
    assert not [
        node.op for node in model.lifted.graph.nodes if node.op in ("parameter", "where_true", "gather", "reshape")
    ]
    assert modules["unit"].type == "L2Normalize", "the shape of what follows the pairs is known"
    shown = str(model.program)
    assert "(selves): DotInteraction(self_interaction=True)" in shown and "(pairs): DotInteraction()" in shown


def test_numbers_and_gradients(exported: Get) -> None:
    model = exported("interactions")
    for rows in (1, 5):
        model.check(batch(rows))
    model.check_gradients(batch(5))


def test_no_rows(exported: Get) -> None:
    """The ops refuse to tell a size of -1 from no values; TensorFlow knows it from the features."""
    model = exported("interactions")
    found = model.program(**{name: to_runtime(value) for name, value in batch(0).items()})
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        name: value.shape for name, value in model.tensorflow(batch(0)).items()
    }


def test_a_free_batch_is_exported_and_compiled(exported: Get) -> None:
    program = exported("interactions").program
    given, other = ({key: to_runtime(value) for key, value in batch(rows).items()} for rows in (3, 5))
    free = {name: {0: torch.export.Dim.AUTO} for name in given}
    whole = torch.export.export(program, (), given, dynamic_shapes=free, strict=False).module()
    torch.testing.assert_close(whole(**other), program(**other))
    torch._dynamo.reset()
    compiled = torch.compile(program, fullgraph=True, backend="eager", dynamic=True)
    torch.testing.assert_close(compiled(**other), program(**other))


X = {"x": ("float32", ("n", 4, 5))}


def boolean_mask(t: Any, x: Any, size: int, *, lower: int = 0, upper: int = -1, other: Any = None) -> Any:
    """tf.boolean_mask of the products, by ones less those of a band."""
    products = t.matmul(x, t.matrix_transpose(x if other is None else other))
    ones = t.ones_like(products)
    mask = t.sub(ones, t.band_part(ones, lower=lower, upper=upper))
    places = t.squeeze(t.where_true(t.reshape(mask, -1)), axes=(1,))
    return t.reshape(t.gather(t.reshape(products, -1), t.in_range(places, 48), axis=0, batch_dims=0), -1, size)


def test_one_tensor_of_all_features() -> None:
    found = lifted(lambda t, x: boolean_mask(t, x, 6), X)
    assert layer(found) == ("DotInteraction", {"self_interaction": False})
    assert ops(found) == ["module"]


def test_stacked_features_are_its_operands() -> None:
    rows = dict.fromkeys("abc", ("float32", ("n", 5)))
    found = lifted(lambda t, *xs: boolean_mask(t, t.stack(*xs, axis=1), 3), rows)
    assert layer(found)[0] == "DotInteraction" and ops(found) == ["module"]
    (node,) = found.graph.nodes
    assert node.inputs == ("a", "b", "c")


@pytest.mark.parametrize(
    "write",
    [
        lambda t, x: boolean_mask(t, x, 3, lower=1),
        lambda t, x: boolean_mask(t, x, 6, lower=-1, upper=0),
        lambda t, x: boolean_mask(t, x, 6, other=t.square(x)),
    ],
    ids=["another_band", "above_the_diagonal", "of_two_values"],
)
def test_other_products_stay(write: Any) -> None:
    assert not lifted(write, X).graph.modules


def test_rows_of_another_size_stay() -> None:
    found = lifted(lambda t, x: boolean_mask(t, x, 3), X)
    assert not found.graph.modules
    assert "its rows are not of the 6 pairs of 4 features" in "\n".join(found.refusals)
