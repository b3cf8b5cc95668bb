"""A listing runs nothing: a tower's computation may be very large, or never end."""

from __future__ import annotations

import pytest

from tests.torch_towers.budget import within_budget
from tests.torch_towers.towers import (
    id_spec,
    id_store,
    id_tower,
    two_towers,
    word_tower,
)
from torch_towers import Tower, TowerSpec
from torch_towers.graph.graph import Graph, Node
from torch_towers.program.listing import listing

SETUP = """
from torch_towers.graph.graph import Graph, Node, TensorSpec
from torch_towers.program.listing import listing, model_card
from torch_towers.graph.spec import TowerSpec
from torch_towers.tower import Tower
import torch
def shown(nodes, shape=("batch", 4), inner=()):
    x = TensorSpec("x", "float32", shape)
    return Tower(TowerSpec(Graph((x,), tuple(inner), {"x": "x"}), Graph((x,), tuple(nodes), {"y": "y"}), None, (x,), (TensorSpec("y", "float32", None),)), {})
shown([Node("y", "neg", ("x",), {})])(torch.zeros(2, 4))
listing(shown([Node("y", "matmul", ("x", "x"), {})]))
"""
HUGE = 1 << 40

LARGE = {
    "pad": f'Node("y", "pad", ("x", 0.0, 0, 0, 0, {HUGE}), {{}})',
    "tile": f'Node("y", "tile", ("x", 1, {HUGE}), {{}})',
    "broadcast_to": f'Node("z", "unsqueeze", ("x",), {{"axis": 0}}), Node("y", "broadcast_to", ("z", {HUGE}, 2, 4), {{}})',
    "resize_bicubic": f'Node("z", "reshape", ("x", -1, 2, 2, 1), {{}}), Node("y", "resize_bicubic", ("z", {HUGE}, 9), '
                      '{"align_corners": False, "half_pixel_centers": True})',
    "gather": f'Node("i", "arange", (0, {HUGE}, 1), {{"dtype": "int64"}}), Node("y", "gather", ("x", "i"), {{"axis": 0}})',
    "one_hot": f'Node("i", "cast", ("x",), {{"dtype": "int64"}}), Node("y", "one_hot", ("i", {HUGE}, 1.0, 0.0), {{"axis": -1}})',
    "while_loop": 'Node("y", "while_loop", ("x",), {"cond": Graph((TensorSpec("v", "float32", None),), (Node("a", "reduce_all", '
                  '(True,), {"axes": ()}),), {"output": "a"}), "body": Graph((TensorSpec("v", "float32", None),), (), {"o": "v"}), "carried": 1})',
}  # fmt: skip


@pytest.mark.parametrize("op", LARGE)
def test_what_would_be_large_or_endless_is_listed(op: str) -> None:
    assert f"y = {op}(" in within_budget(f"print(listing(shown([{LARGE[op]}])))", setup=SETUP)


def test_an_input_that_no_machine_holds() -> None:
    code = f'print(model_card({{"query": shown([Node("y", "neg", ("x",), {{}})], ("batch", {HUGE}))}}, "dot"))'
    said = within_budget(code, setup=SETUP)
    assert "y = neg(x)" in said and f"float32 [batch, {HUGE}]" in said


def test_an_input_of_more_sizes_than_a_tensor_has() -> None:
    code = 'print(listing(shown([Node("y", "neg", ("x",), {})], ("batch", *[None] * 300))))'
    assert "y = neg(x)" in within_budget(code, setup=SETUP)


def test_sizes_that_no_batch_has_are_told_from_rows() -> None:
    code = 'print(listing(shown([Node("y", "neg", ("x",), {})], ("batch", None))))'
    assert "float32 [batch, ?]" in within_budget(code, setup=SETUP)


def test_listing() -> None:
    text = listing(word_tower())
    assert text == repr(word_tower())
    for part in ("inputs   word string [batch], size float32 [batch]", "outputs  embedding float32 [batch, 4]", "preprocess(word, size)",
                 "dense_out = Linear(in_features=4, out_features=4)(joined)", "float32 [batch, 4]", "return embedding=out"):  # fmt: skip
        assert part in text
    steps = [line for line in text.splitlines() if " = " in line]
    assert all("[batch" in line for line in steps if "parameter" not in line and "constant" not in line), text
    assert "postprocess(best)" in listing(id_tower()) and "string [batch]" in listing(id_tower())
    assert "TwoTower, similarity: dot" in repr(two_towers())


def test_listing_of_a_tower_that_refuses_made_up_rows() -> None:
    spec = id_spec()
    never = Graph(spec.inputs, (Node("checked", "in_range", ("id", 0)),), {"row": "checked"})
    text = listing(
        Tower(TowerSpec(never, spec.encoder, spec.postprocess, spec.inputs, spec.outputs, "embedding"), id_store())
    )
    assert "checked = in_range(id, 0)" in text
