"""The fused recurrent cells of TensorFlow 1's contrib."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter

Emit = ConvertingEmitter

_RESULTS = ("i", "cs", "f", "o", "ci", "co", "h")


@converter("LSTMBlockCell", outputs=_RESULTS)
def lstm_block_cell(
    t: Emit, *operands: Any, forget_bias: float = 1.0, cell_clip: float = 3.0, use_peephole: bool = False
) -> Any:
    return t.lstm_block_cell(*operands, order="icfo", forget_bias=forget_bias, clip=cell_clip, peephole=use_peephole)


@converter("BlockLSTM", outputs=_RESULTS)
def block_lstm(
    t: Emit, *operands: Any, forget_bias: float = 1.0, cell_clip: float = 3.0, use_peephole: bool = False
) -> Any:
    steps, *rest = map(t.tensor, operands)
    return t.block_lstm(steps, *rest, order="icfo", forget_bias=forget_bias, clip=cell_clip, peephole=use_peephole)


@converter("BlockLSTMV2", outputs=_RESULTS)
def block_lstm_v2(t: Emit, *operands: Any, cell_clip: float = 0.0, use_peephole: bool = False) -> Any:
    steps, *rest = map(t.tensor, operands)
    return t.block_lstm(steps, *rest, order="ifco", forget_bias=0.0, clip=cell_clip, peephole=use_peephole)


@converter("GRUBlockCell", outputs=("r", "u", "c", "h"))
def gru_block_cell(t: Emit, *operands: Any) -> Any:
    return t.gru_block_cell(*operands)
