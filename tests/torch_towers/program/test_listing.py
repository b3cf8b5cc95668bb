"""A listing runs nothing: what a tower would compute may be very large, or never end."""

from __future__ import annotations

import pytest

from tests.torch_towers.budget import within_budget

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


def test_sizes_that_no_batch_has_are_told_from_rows() -> None:
    code = 'print(listing(shown([Node("y", "neg", ("x",), {})], ("batch", None))))'
    assert "float32 [batch, ?]" in within_budget(code, setup=SETUP)
