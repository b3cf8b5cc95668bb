"""Averages of embeddings as one matmul equal the graph's own ops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from porting.conversion.values import Value
from porting.lifting.lift import lift
from porting.saved_model import read
from porting.tower import port_tower
from tests.porting.rewrites import by_hand
from torch_towers.graph.graph import Graph, ModuleSpec, Node, TensorSpec
from torch_towers.program.program import Program

QUERY = Path(__file__).parents[3] / "examples" / "packages" / "query_model"


def test_the_demo_tower() -> None:
    model = read(QUERY)
    lifted, spelled = port_tower(model), port_tower(model, lifts=False)
    ops = [node.op for node in lifted.spec.encoder.nodes]
    assert not {"weighted_sum", "where", "reduce_sum", "div"} & set(ops)
    assert lifted.lifted["MaskedAverage"] == 1 and "(mean_of_words): MaskedAverage()" in str(lifted.tower().encoder)
    texts = ["edit photos", "play chess against the computer", "a", "unknownword zzz", "gnu " * 60]
    found, expected = lifted.tower().encode(texts), spelled.tower().encode(texts)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def graph(kind: str, table: torch.Tensor) -> tuple[Graph, dict[str, Any], dict[str, Value]]:
    """The middle of an averaged embedding, by `where` or by `mul`."""
    inputs = (TensorSpec("ids", "int64", (None, 3)), TensorSpec("mask", "bool", (None, 3)))
    weights = Node("weights", "cast", ("mask",), {"dtype": "float32"})
    zero = Node("zero", "constant", attrs={"tensor": "zero"})
    column = Node("column", "unsqueeze", ("mask" if kind == "where" else "weights",), {"axis": 2})
    rows = Node("rows", "module", ("ids",), {"module": "table"})
    masked = (
        Node("masked", "where", ("column", "rows", "zero"))
        if kind == "where"
        else Node("masked", "mul", ("rows", "column"))
    )
    total = Node("total", "reduce_sum", ("masked",), {"axes": (1,), "keepdim": False})
    shapes: dict[str, tuple[str, tuple[Any, ...]]] = {
        "zero": ("float32", ()), "ids": ("int64", ("n", 3)), "mask": ("bool", ("n", 3)), "weights": ("float32", ("n", 3)),
        "column": ("bool" if kind == "where" else "float32", ("n", 3, 1)), "rows": ("float32", ("n", 3, 2)),
        "masked": ("float32", ("n", 3, 2)), "total": ("float32", ("n", 2)),
    }  # fmt: skip
    modules = {"table": ModuleSpec("Embedding", {"num_embeddings": 4, "embedding_dim": 2})}
    nodes = (weights, column, rows, masked, total) if kind == "mul" else (zero, column, rows, masked, total)
    known = {name: Value(name, dtype, shape) for name, (dtype, shape) in shapes.items()}
    return Graph(inputs, nodes, {"out": "total"}, modules), {"table.weight": table, "zero": torch.tensor(0.0)}, known


@pytest.mark.parametrize("kind", ["where", "mul"])
def test_equals_the_ops(kind: str) -> None:
    built, store, known = graph(kind, torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    lifted = lift(built, store, known)
    assert [node.op for node in lifted.graph.nodes if node.op != "cast"] == ["module", "weighted_sum"]
    inputs = {
        "ids": torch.tensor([[0, 1, 2], [3, 3, 0], [1, 2, 3]]),
        "mask": torch.tensor([[1, 0, 1], [1, 1, 1], [0, 0, 0]]) == 1,
    }
    found = Program(lifted.graph, lifted.store)(**inputs)["out"]
    torch.testing.assert_close(found, Program(built, store)(**inputs)["out"])


def test_infinite_rows_stay_out_of_the_sum() -> None:
    built, store, known = graph("where", torch.tensor([[float("inf"), 0.0], [1, 2], [3, 4], [5, 6]]))
    lifted = lift(built, store, known)
    assert "weighted_sum" not in [node.op for node in lifted.graph.nodes]
    assert any("finite" in refusal for refusal in lifted.refusals)


ROWS = {"x": ("float32", ("n", 4, 3)), "mask": ("bool", ("n", 4))}
MASK = {"mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]) == 1}


def count(t: Any, mask: Any) -> Any:
    return t.reduce_sum(t.cast(mask, dtype="float32"), axes=(1,), keepdim=True)


def total(t: Any, x: Any, mask: Any) -> Any:
    weights = t.unsqueeze(t.cast(mask, dtype="float32"), axis=2)
    return t.reduce_sum(t.mul(x, weights), axes=(1,), keepdim=False)


def divided(t: Any, x: Any, mask: Any) -> Any:
    return t.div(total(t, x, mask), t.maximum(count(t, mask), 1e-9))


def without_nan(t: Any, x: Any, mask: Any) -> Any:
    return t.div_no_nan(total(t, x, mask), count(t, mask))


def selected(t: Any, x: Any, mask: Any) -> Any:
    kept = t.where(t.unsqueeze(mask, axis=2), x, t.zeros_like(x))
    counts = t.reduce_sum(t.cast(t.unsqueeze(mask, axis=2), dtype="float32"), axes=(1,), keepdim=False)
    return t.div(t.reduce_sum(kept, axes=(1,), keepdim=False), t.maximum(counts, 1.0))


AVERAGES = {divided: {"floor": 1e-9}, without_nan: {"zero_if_empty": True}, selected: {"floor": 1.0, "finite": False}}


@pytest.mark.parametrize("write", AVERAGES, ids=lambda write: write.__name__)
def test_averages(write: Any) -> None:
    found = by_hand.lifted(write, ROWS, batch=MASK)
    assert by_hand.layer(found) == ("MaskedAverage", AVERAGES[write])
    assert by_hand.ops(found) == ["module"]


def test_rows_that_are_not_selected_may_be_anything() -> None:
    x = torch.tensor([[[1.0, 2, 3], [4, 5, 6], [float("inf"), 0, 0], [float("nan"), 0, 0]]]).repeat(3, 1, 1)
    by_hand.lifted(selected, ROWS, batch={"x": x, "mask": MASK["mask"] & (torch.arange(4) < 2)})


def test_an_average_by_weights() -> None:
    def write(t: Any, x: Any, weights: Any) -> Any:
        whole = t.reduce_sum(t.mul(x, t.unsqueeze(weights, axis=2)), axes=(1,), keepdim=False)
        return t.div(whole, t.reduce_sum(weights, axes=(1,), keepdim=True))

    assert by_hand.layer(by_hand.lifted(write, {"x": ROWS["x"], "w": ("float32", ("n", 4))})) == ("MaskedAverage", {})


def test_near_misses() -> None:
    def by_another(t: Any, x: Any, mask: Any, other: Any) -> Any:
        return t.div(total(t, x, mask), count(t, other))

    both = {**MASK, "other": torch.ones(3, 4) == 1}
    found = by_hand.lifted(by_another, {**ROWS, "other": ROWS["mask"]}, batch=both)
    assert not found.graph.modules
    assert "what it divides by is not the sum of its own mask" in "\n".join(found.refusals)
