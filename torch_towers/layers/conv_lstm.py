"""An LSTM whose products are convolutions, over sequences of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torch_towers.graph.registry import module
from torch_towers.layers.activations import Activation
from torch_towers.layers.recurrent import Gated, State
from torch_towers.ops.conv import Padding, checked_padding, convolve, window_sizes
from torch_towers.ops.nn import relu


@module()
class ConvLSTM(Gated):
    """An LSTM over images of 1 to 3 spatial axes: `[n, length, *space, input_size] -> [n, *space', hidden_size]`.

    Its input is convolved with `stride` and `padding` ("SAME", "VALID", or (before, after) per spatial axis); its state, of the
    size of the result, with a kernel of the same size and `padding="SAME"`. Other operands and the results are those of `Recurrent`, with the spatial axes before the last one. `no_nan`: the relu of what a step adds maps NaN to 0, as
    oneDNN's fused kernels do. Source: Keras ConvLSTM1D, ConvLSTM2D, ConvLSTM3D.
    """

    gate_count = 4
    states = 2
    in_torch = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: Padding = "VALID",
        bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output: bool = False,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        slope: float = 0.2,
        no_nan: bool = False,
    ) -> None:
        results = (return_sequences, return_state, go_backwards, zero_output)
        super().__init__(input_size, hidden_size, bias, *results, activation, recurrent_activation, slope)
        self.kernel_size, self.stride = kernel_size, stride
        self.margins: Padding = checked_padding(padding)
        self.once, self.no_nan = (1,) * len(kernel_size), no_nan
        rows = self.gate_count * hidden_size
        self.weight_ih = nn.Parameter(torch.zeros(rows, input_size, *kernel_size))
        self.weight_hh = nn.Parameter(torch.zeros(rows, hidden_size, *kernel_size))

    def make_weights(self, bias: bool) -> None:
        """Makes the bias; the kernels are made when their size is known."""
        self.bias_ih = nn.Parameter(torch.zeros(self.gate_count * self.hidden_size)) if bias else None

    def zero_state(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], *self._space(x.shape), self.hidden_size)

    def _space(self, x: torch.Size) -> list[int]:
        """The spatial sizes of the result."""
        return window_sizes(x[2:-1], self.kernel_size, self.stride, self.margins)

    def inputs(self, x: Tensor) -> Tensor:
        """What all steps take from the sequence: `[n, length, *space, input_size] -> [n, length, *space', gates *
        hidden_size]`."""
        images = x.flatten(0, 1).movedim(-1, 1)
        y = convolve(images, self.weight_ih, self.bias_ih, self.stride, self.margins, self.once, 1)
        y = y.movedim(1, -1)
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        h, c = state
        y = convolve(h.movedim(-1, 1), self.weight_hh, None, self.once, "SAME", self.once, 1)
        gates = inputs + y.movedim(1, -1)
        gates = gates.reshape(*gates.shape[:-1], 4, self.hidden_size)
        g = gates[..., 2, :].contiguous()
        i, f, _, o = self.gate(gates).unbind(-2)  # that of `g` too: they lie in one piece
        c = f * c + i * (relu(g, no_nan=True) if self.no_nan else self.act(g))
        return o * self.act(c), c

    def multiplications(self, x: torch.Size) -> float:
        """The number of multiplications for a sequence of this shape."""
        places = x[:2].numel() * math.prod(self._space(x))
        return float(places * (self.weight_ih.numel() + self.weight_hh.numel()))

    def extra_repr(self) -> str:
        shown = (
            f"{super().extra_repr()}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.margins!r}"
        )
        return f"{shown}, no_nan=True" if self.no_nan else shown
