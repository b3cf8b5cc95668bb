"""The fused recurrent cells of TensorFlow 1's contrib, in the dtype of their operands."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from torch_towers.graph.registry import op

Cell = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@op()
def lstm_block_cell(
    x: Tensor, cell: Tensor, h: Tensor, w: Tensor, wci: Tensor, wcf: Tensor, wco: Tensor, b: Tensor, *, order: Literal["icfo", "ifco"],
    forget_bias: float, clip: float, peephole: bool,
) -> Cell:  # fmt: skip
    """One step of an LSTM: input gate, cell, forget gate, output gate, candidate, its tanh, output, each `[batch,
    dim]`.

    `[batch, in], 2 x [batch, dim], [in + dim, 4 dim], 3 x [dim], [4 dim]`; `order` is that of the gates in `w`, "icfo"
    or "ifco". The cell is clipped at `clip` if that is above 0; with `peephole` the gates see the cell. Source:
    tf.raw_ops.LSTMBlockCell.
    """
    parts = dict(zip(order, (torch.cat([x, h], 1) @ w + b).chunk(4, 1), strict=True))
    i = torch.sigmoid(parts["i"] + cell * wci if peephole else parts["i"])
    f = torch.sigmoid(parts["f"] + forget_bias + cell * wcf if peephole else parts["f"] + forget_bias)
    candidate = torch.tanh(parts["c"])
    new = candidate * i + cell * f
    if clip > 0:
        new = new.clamp(-clip, clip)
    o = torch.sigmoid(parts["o"] + new * wco if peephole else parts["o"])
    squashed = torch.tanh(new)
    return i, new, f, o, candidate, squashed, o * squashed


@op()
def block_lstm(
    steps: Tensor, x: Tensor, cell: Tensor, h: Tensor, w: Tensor, wci: Tensor, wcf: Tensor, wco: Tensor, b: Tensor, *, order: Literal["icfo", "ifco"],
    forget_bias: float, clip: float, peephole: bool,
) -> Cell:  # fmt: skip
    """`lstm_block_cell` over time: `[], [time, batch, in], ... -> 7 x [time, batch, dim]`; zeros from `steps` on.

    Source: tf.raw_ops.BlockLSTM, BlockLSTMV2.
    """
    found: list[Cell] = []
    for step in x.unbind(0):
        now = lstm_block_cell(
            step, cell, h, w, wci, wcf, wco, b, order=order, forget_bias=forget_bias, clip=clip, peephole=peephole
        )
        cell, h = now[1], now[6]
        found.append(now)
    runs = (torch.arange(x.shape[0], device=x.device) < steps).reshape(-1, 1, 1)
    empty = x.new_zeros((0, *cell.shape))
    i, cells, f, o, candidates, squashed, outputs = (
        torch.where(runs, torch.stack(parts), 0.0) if parts else empty
        for parts in (list(map(list, zip(*found, strict=True))) or [[]] * 7)
    )
    return i, cells, f, o, candidates, squashed, outputs


@op()
def gru_block_cell(
    x: Tensor, h: Tensor, gates: Tensor, candidate: Tensor, gate_bias: Tensor, candidate_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of a GRU: reset gate, update gate, candidate and output, each `[batch, dim]`.

    `[batch, in], [batch, dim], [in + dim, 2 dim], [in + dim, dim], [2 dim], [dim]`. Source: tf.raw_ops.GRUBlockCell.
    """
    r, u = torch.sigmoid(torch.cat([x, h], 1) @ gates + gate_bias).chunk(2, 1)
    c = torch.tanh(torch.cat([x, h * r], 1) @ candidate + candidate_bias)
    return r, u, c, u * h + (1 - u) * c
