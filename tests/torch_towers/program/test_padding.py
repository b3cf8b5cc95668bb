"""Rows are truncated, batched by length, and put back in order; the option computes them whole."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_towers
from porting.conversion.emitter import Emitter
from porting.conversion.values import constant
from porting.padding.analysis import find
from torch_towers import Side, Tower, save_checkpoint
from torch_towers.errors import CheckpointError
from torch_towers.graph.graph import Graph, TensorSpec
from torch_towers.graph.spec import Padding, TowerSpec
from torch_towers.program.padding import lengths, run_cut

LENGTH = 7
IDS = TensorSpec("ids", "int64", ("batch", LENGTH))


@pytest.mark.parametrize(
    ("row", "end"), [([1, 2, 0, 0], 2), ([1, 0, 2, 0], 4), ([0, 1, 0, 0], 4), ([0, 0, 0, 0], 4), ([1, 1, 1, 1], 4)]
)
def test_where_a_row_ends(row: list[int], end: int) -> None:
    assert lengths(torch.tensor([row]), 0).tolist() == [end]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=9),
    st.integers(1, 60),
    st.booleans(),
)
def test_rows_come_back_in_their_order(rows: list[list[int]], budget: int, splittable: bool) -> None:
    ids = torch.tensor(rows)
    seen: list[int] = []

    def run(inputs: dict[str, Any], places: float) -> dict[str, Any]:
        x = inputs["ids"]
        assert places == x.numel()
        seen.append(x.numel())
        assert x.numel() <= budget or len(x) == 1 or not splittable
        return {"sums": (x * torch.tensor([1, 3, 9, 27, 81])[: x.shape[1]]).sum(1)}

    padding = [Padding("ids", 0, ("ids",), ("sums",))]
    found = run_cut(run, {"ids": ids}, padding, budget=budget, splittable=splittable)
    assert torch.equal(found["sums"], (ids * torch.tensor([1, 3, 9, 27, 81])).sum(1))
    assert sum(seen) <= ids.numel()


def spec_of() -> tuple[TowerSpec, dict[str, Any]]:
    """A tower of ids: their vectors, two products and the average under the mask."""
    draw = torch.Generator().manual_seed(0)
    t = Emitter([TensorSpec("ids", "int64", (None, LENGTH))])
    ids = t.value("ids", "int64", ("n", LENGTH))
    table, kernel = (torch.randn(shape, generator=draw) for shape in ((9, 4), (4, 4)))
    t.store |= {"table": table, "kernel": kernel}
    x = t.gather(t.parameter("table", "float32", (9, 4)), ids, axis=0, batch_dims=0)
    x = t.add(t.matmul(x, t.parameter("kernel", "float32", (4, 4))), constant(torch.randn(LENGTH, 4, generator=draw)))
    mask = t.unsqueeze(t.not_equal(ids, 0), axis=2)
    sums = t.reduce_sum(t.where(mask, x, constant(torch.tensor(0.0))), axes=(1,))
    graph = t.graph({"out": t.div(sums, t.reduce_sum(t.cast(mask, dtype="float32"), axes=(1,)))})
    found = find(graph, t.store, {})
    assert found.padding == (Padding("ids", 0, ("ids",), ("out",)),)
    outputs = (TensorSpec("out", "float32", ("batch", 4)),)
    spec = TowerSpec(Graph((IDS,), (), {"ids": "ids"}), found.encoder, None, (IDS,), outputs, padding=found.padding)
    return spec, t.store


def rows(count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(count)
    ends = torch.randint(0, LENGTH + 1, (count, 1), generator=draw)
    return torch.randint(1, 9, (count, LENGTH), generator=draw) * (torch.arange(LENGTH) < ends)


def test_a_tower_computes_no_padding_and_the_option_does(tmp_path: Path) -> None:
    spec, store = spec_of()
    seen: list[int] = []
    tower = Tower(spec, store)
    tower.encoder.register_forward_pre_hook(lambda _, __, given: seen.append(given["ids"].numel()), with_kwargs=True)
    ids = rows(20_000)  # more places than run together, so little is to be done for each
    ids[0] = 0  # no place at all
    short = tower.encode({"ids": ids}, batch_size=len(ids))
    assert sum(seen) < 0.9 * ids.numel()
    assert set(tower({"ids": ids})) == {"out"}
    tower.skip_padding = False
    seen.clear()
    torch.testing.assert_close(
        short, tower.encode({"ids": ids}, batch_size=len(ids)), rtol=1e-6, atol=1e-6, equal_nan=True
    )  # other sums
    assert sum(seen) == ids.numel()

    save_checkpoint(
        tmp_path / "c", query=Side(spec, store), candidate=None, similarity="dot", source={}, extra_files={}
    )
    for skip in (True, False):
        loaded = torch_towers.load(tmp_path / "c", skip_padding=skip)
        assert loaded.query is not None
        assert loaded.query.spec.padding == spec.padding
        assert loaded.query.skip_padding is skip
        assert copy.deepcopy(loaded.query).skip_padding is skip
        loaded.save(tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["towers"]["query"]["padding"]


def test_gradients_and_compilers_see_whole_rows() -> None:
    spec, store = spec_of()
    tower = Tower(spec, store).train()
    ids = rows(5).clamp_min(1)
    found = tower({"ids": ids})["out"]
    found.sum().backward()
    assert all(weight.grad is not None for weight in tower.parameters())
    exported = torch.export.export(
        tower.encoder.eval(), (), {"ids": ids}, dynamic_shapes={"ids": {0: torch.export.Dim("n")}}
    )
    assert torch.equal(exported.module()(ids=ids)["out"], tower.encoder(ids=ids)["out"])


@pytest.mark.parametrize(
    "wrong",
    [Padding("none", 0, ("none",), ("out",)), Padding("ids", 0, ("ids",), ("other",)), Padding("ids", 0, (), ("out",))],
)
def test_padding_of_what_is_not_there_is_refused(wrong: Padding) -> None:
    spec, store = spec_of()
    broken = TowerSpec(spec.preprocess, spec.encoder, None, spec.inputs, spec.outputs, padding=(wrong,))
    with pytest.raises(CheckpointError, match="no rows to truncate"):
        Tower(broken, store)
