"""Recurrent layers: torch's own kernels, with Keras's masks, directions and results."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.errors import InputError
from torch_towers.graph.registry import module
from torch_towers.kernels.fast_path import forward_ad_is_on, readable

State = tuple[Tensor, ...]

# The one loop that `torch.export` takes with gradients. Older torch has no such thing; an exported length is fixed there.
try:
    from torch._higher_order_ops.scan import scan as _found
except ImportError:
    _found = None
_scan: Any = _found
_exporting: Any = getattr(torch.compiler, "is_exporting", lambda: False)


class Recurrent(nn.Module):
    """A layer that reads a sequence step by step: `[n, length, input_size] -> [n, hidden_size]`, its output after the last step.

    `return_sequences`: the outputs of all steps, `[n, length, hidden_size]`. `return_state`: a tuple of the result and the last
    state. `go_backwards`: from the last step to the first. A step that `mask [n, length]` leaves out changes nothing and gives
    the output before it, or zeros with `zero_output`; under a mask the first state is zero. Gates lie in torch's order.
    """

    gates = 1
    states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.return_sequences, self.return_state = return_sequences, return_state
        self.go_backwards, self.zero_output = go_backwards, zero_output
        rows = self.gates * hidden_size
        self.weight_ih = nn.Parameter(torch.zeros(rows, input_size))
        self.weight_hh = nn.Parameter(torch.zeros(rows, hidden_size))
        self.bias_ih = nn.Parameter(torch.zeros(rows)) if bias else None

    def forward(self, x: Tensor, mask: Tensor | None = None, *state: Tensor) -> Tensor | State:
        if self.go_backwards:
            x, mask = x.flip(1), None if mask is None else mask.flip(1)
        state = state or (x.new_zeros(x.shape[0], self.hidden_size),) * self.states
        if mask is None:
            sequence, state = self.run(x, state)
            last = sequence if self.return_sequences else state[0]
            return (last, *state) if self.return_state else last
        sequence = self._masked(x, mask, state)
        last = sequence[:, -1]  # the state after the last step that counts
        if self.return_sequences and self.zero_output:
            sequence = torch.where(mask.unsqueeze(-1), sequence, 0.0)
        result = sequence if self.return_sequences else last
        return (result, last) if self.return_state else result

    def _masked(self, x: Tensor, mask: Tensor, state: State) -> Tensor:
        """The state after every step: the steps that count move to the front, and each place takes what was last before it."""
        several = self.has_kernel and x.shape[0] > 1 and readable(x, mask) and not forward_ad_is_on()
        if several and bool(mask.any()):
            return self._packed(x, mask, state)
        order = torch.argsort(mask.logical_not().to(torch.uint8), dim=1, stable=True)
        counts = mask.to(torch.int64).cumsum(1)
        if (
            readable(mask) and mask.shape[0] and mask.shape[1]
        ):  # what comes after the last step that counts is not computed
            order = order[:, : max(int(counts[:, -1].max()), 1)]
        sequence, _ = self.run(_steps(x, order), state)
        sequence = torch.cat((state[0].unsqueeze(1), sequence), 1)
        places = counts if self.return_sequences else counts[:, -1:]
        return _steps(sequence, places)

    def _packed(self, x: Tensor, mask: Tensor, state: State) -> Tensor:
        """The same by torch's kernel for rows of different lengths: a step computes the rows that still have one."""
        counts = mask.to(torch.int64).cumsum(1)
        longest = torch.argsort(counts[:, -1], descending=True, stable=True)  # rows, those with most steps first
        steps = torch.arange(x.shape[1], device=x.device).unsqueeze(1)
        step, nth = (counts[:, -1][longest] > steps).nonzero(as_tuple=True)  # of each step, the rows that have it
        sizes = torch.bincount(step)
        order = torch.argsort(mask.logical_not().to(torch.uint8), dim=1, stable=True)
        rows = longest[nth]
        first = tuple(each[longest[: int(sizes[0])]] for each in state)
        outputs, _ = self.kernel(x[rows, order[rows, step]], first, sizes.cpu())
        places = counts if self.return_sequences else counts[:, -1:]
        starts = sizes.cumsum(0) - sizes
        last = starts[(places - 1).clamp_min(0)] + torch.argsort(longest).unsqueeze(1)
        begun = places > 0
        found = outputs[torch.where(begun, last, 0)]
        return torch.where(begun.unsqueeze(-1), found, state[0].unsqueeze(1))

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The outputs of all steps and the last state: by torch's kernel, or step by step where a compiler looks on.

        torch's compilers take no recurrent kernel: they unroll it, so that an exported length would be fixed.
        """
        if readable(x) and not x.shape[1]:
            raise InputError("a recurrent layer needs at least one step, but its sequence has none")
        if self.has_kernel and readable(x) and not forward_ad_is_on():
            return self.kernel(x, state)
        inputs = F.linear(x, self.weight_ih, self.bias_ih)
        if _exporting() and _scan is not None:
            return self._scanned(inputs, state)
        outputs: list[Tensor] = []
        for step in range(x.shape[1]):
            state = self.step(inputs[:, step], *state)
            outputs.append(state[0])
        return torch.stack(outputs, 1), state

    def _scanned(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """The same as one operation on the sequence, whatever its length."""

        def step(state: State, inputs: Tensor) -> tuple[State, Tensor]:
            state = self.step(inputs, *state)
            return state, state[0].clone()

        own = tuple(each.clone() for each in state)  # `scan` takes one tensor for two states to be one state
        state, outputs = _scan(step, own, inputs.transpose(0, 1).contiguous(), dim=0)
        return outputs.transpose(0, 1), tuple(state)

    has_kernel = True

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        """The same by torch's own kernel; with `sizes`, of steps `[n, input_size]` one after another, each of as many rows."""
        raise NotImplementedError

    def _called(self, function: Any, x: Tensor, state: Any, weights: list[Tensor], sizes: Tensor | None) -> Any:
        options = (weights, self.bias_ih is not None, 1, 0.0, False, False)
        return function(x, state, *options, True) if sizes is None else function(x, sizes, state, *options)

    def multiplications(self, x: torch.Size) -> float:
        """Those of a call on a sequence of this shape."""
        return float(x[:-1].numel() * (self.weight_ih.numel() + self.weight_hh.numel()))

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        """The state after one step: `[n, gates * hidden_size], [n, hidden_size] ... -> [n, hidden_size] ...`."""
        raise NotImplementedError

    def _weights(self, bias_hh: Tensor | None = None) -> list[Tensor]:
        """The weights as torch's kernels take them, which know two biases or none."""
        if self.bias_ih is None:
            return [self.weight_ih, self.weight_hh]
        return [
            self.weight_ih,
            self.weight_hh,
            self.bias_ih,
            torch.zeros_like(self.bias_ih) if bias_hh is None else bias_hh,
        ]

    def extra_repr(self) -> str:
        flags = ("return_sequences", "return_state", "go_backwards", "zero_output")
        given = [f"{flag}=True" for flag in flags if getattr(self, flag)]
        bias = ["bias=False"] if self.bias_ih is None else []
        return ", ".join([str(self.input_size), str(self.hidden_size), *bias, *given])


def _steps(x: Tensor, places: Tensor) -> Tensor:
    """The steps of each row at its places: `[n, length, dim], [n, m] -> [n, m, dim]`."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))  # `take_along_dim` fixes an exported length


@module()
class SimpleRNN(Recurrent):
    """`h = tanh(W_ih x + W_hh h + b)`; see `Recurrent` for operands and results. Source: Keras SimpleRNN."""

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        found, h = self._called(torch.rnn_tanh, x, state[0].unsqueeze(0), self._weights(), sizes)
        return found, (h[0],)

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        return (torch.tanh(inputs + F.linear(state[0], self.weight_hh)),)


@module()
class LSTM(Recurrent):
    """`nn.LSTM` with one bias; its state is `h, c`; see `Recurrent` for operands and results. Source: Keras LSTM."""

    gates = 4
    states = 2

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        start = [each.unsqueeze(0) for each in state]
        found, h, c = self._called(torch.lstm, x, start, self._weights(), sizes)
        return found, (h[0], c[0])

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        h, c = state
        i, f, g, o = (inputs + F.linear(h, self.weight_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


@module()
class GRU(Recurrent):
    """`nn.GRU`; see `Recurrent` for operands and results.

    `reset_after` False: the state is reset before its product, and there is one bias, which torch's own has not.
    Source: Keras GRU.
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output: bool = False,
        reset_after: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, return_sequences, return_state, go_backwards, zero_output)
        self.has_kernel = self.reset_after = reset_after
        self.bias_hh = nn.Parameter(torch.zeros(3 * hidden_size)) if bias and reset_after else None

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        found, h = self._called(torch.gru, x, state[0].unsqueeze(0), self._weights(self.bias_hh), sizes)
        return found, (h[0],)

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        (h,) = state
        r, z, n = inputs.chunk(3, -1)
        if self.reset_after:
            r_h, z_h, n_h = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, -1)
            r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
            n = torch.tanh(n + r * n_h)
        else:
            r_h, z_h = F.linear(h, self.weight_hh[: 2 * self.hidden_size]).chunk(2, -1)
            r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
            n = torch.tanh(n + F.linear(r * h, self.weight_hh[2 * self.hidden_size :]))
        return ((1 - z) * n + z * h,)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.reset_after else ", reset_after=False")
