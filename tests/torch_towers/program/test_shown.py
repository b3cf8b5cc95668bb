"""`print(encoder)`: equal blocks once, with how many there are; a block that was swapped stands for itself."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.torch_towers.program.test_blocks import program, stack


def test_equal_blocks_stand_once() -> None:
    text = repr(program(stack(5)))
    assert "(block_0 ... block_4): 5 x Module(" in text
    assert text.count("LayerNorm") == 1
    assert text.index("(before): Linear") < text.index("(behind): Linear")


def test_one_block_is_no_repeat() -> None:
    assert " x " not in repr(program(stack(1)))


def test_a_swapped_layer_is_seen() -> None:
    made: Any = program(stack(3))
    made.get_submodule("block_1").norm = nn.Identity()
    text = repr(made)
    assert text.count("Identity()") == 1
    assert text.count("LayerNorm") == 2
