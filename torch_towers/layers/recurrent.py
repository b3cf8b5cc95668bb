"""Recurrent layers: torch's kernels, with Keras's masks, directions and results."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from torch_towers.errors import InputError
from torch_towers.graph.registry import module
from torch_towers.kernels import small_layers
from torch_towers.kernels.fast_path import forward_ad_is_on, readable
from torch_towers.kernels.threads import on_one_thread
from torch_towers.layers.activations import Activation
from torch_towers.layers.activations import activation as named_activation

State = tuple[Tensor, ...]

# The only loop that `torch.export` supports with gradients. Older torch lacks it; there an exported length is fixed.
try:
    from torch._higher_order_ops.scan import scan as _found
except ImportError:
    _found = None
_scan: Any = _found
_exporting: Any = getattr(torch.compiler, "is_exporting", lambda: False)


class Recurrent(nn.Module):
    """A layer over a sequence: `[n, length, input_size] -> [n, hidden_size]`, its output after the last step.

    `return_sequences`: the outputs of all steps, `[n, length, hidden_size]`. `return_state`: a tuple of the result and
    the last state. `go_backwards`: from the last step to the first. A step masked out by `mask [n, length]` keeps the
    state and repeats the previous output, or outputs zeros with `zero_output`; before the first unmasked step the
    output is zero. `state [n, hidden_size] ...`: the first state, zero if it is not given. Gates are in torch's order.
    `activation`: of what a step adds, by its name in `torch_towers.layers.activations`, with its `slope` if it has one.
    """

    gate_count = 1
    states = 1
    in_torch = True  # whether torch has a kernel for it
    cell: small_layers.Cell | None = None  # for the native kernel for few units

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output: bool = False,
        activation: Activation = "tanh",
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.return_sequences, self.return_state = return_sequences, return_state
        self.go_backwards, self.zero_output = go_backwards, zero_output
        self.bias = bias
        self.activation, self.act, self.slope = activation, named_activation(activation, slope), slope
        self.has_kernel = activation == "tanh"
        self.make_weights(bias)

    def make_weights(self, bias: bool) -> None:
        """Makes the weights of all gates, to be filled."""
        rows, input_size, hidden_size = self.gate_count * self.hidden_size, self.input_size, self.hidden_size
        self.weight_ih = nn.Parameter(torch.zeros(rows, input_size))
        self.weight_hh = nn.Parameter(torch.zeros(rows, hidden_size))
        self.bias_ih = nn.Parameter(torch.zeros(rows)) if bias else None

    def forward(self, x: Tensor, mask: Tensor | None = None, *state: Tensor) -> Tensor | State:
        if self.go_backwards:
            x, mask = x.flip(1), None if mask is None else mask.flip(1)
        small = self._small(x, mask, state)
        if small is not None:
            sequence, last, state = small
            result = last if sequence is None else sequence
            return (result, *state) if self.return_state else result
        state = state or (self.zero_state(x),) * self.states
        if mask is None:
            sequence, state = self.run(x, state)
        else:
            sequence, state = self._masked(x, mask, state)
        last = state[0] if mask is None else sequence[:, -1]
        if mask is not None and self.return_sequences and self.zero_output:
            sequence = torch.where(_beside(mask, sequence), sequence, 0.0)
        result = sequence if self.return_sequences else last
        return (result, *state) if self.return_state else result

    def zero_state(self, x: Tensor) -> Tensor:
        """The first state, if none is given, of the sequence `x`."""
        return x.new_zeros(x.shape[0], self.hidden_size)

    def _small(self, x: Tensor, mask: Tensor | None, state: State) -> tuple[Tensor | None, Tensor, State] | None:
        """The outputs of all steps (or None), the last one and the last states, by the native kernel for few units."""
        if self.cell is None:
            return None
        weights = self.weight_ih, self.weight_hh, self.bias_ih, getattr(self, "bias_hh", None)
        slow = mask is not None or not self.has_kernel or self.gate_count == 3  # torch has no fused GRU
        return small_layers.recurrent(self.cell, x, mask, weights, state, sequences=self.return_sequences, slow=slow)

    def _masked(self, x: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State]:
        """The output after every step, or after the last one without `return_sequences`, and the last state.

        Outside a compiler, unmasked steps are moved to the front, and masked ones repeat the output before them.
        """
        if not readable(x, mask) or not mask.numel():
            return self._looped(x, state, mask)
        counts = mask.to(torch.int64).cumsum(1)
        order = torch.argsort(mask.logical_not().to(torch.uint8), dim=1, stable=True)
        if self.has_kernel and x.shape[0] > 1 and bool(mask.any()) and not forward_ad_is_on():
            return self._packed(x, counts, order, state)
        longest = int(counts[:, -1].max())  # steps after the last unmasked one are not computed
        front = _steps(x, order[:, : max(longest, 1)])
        if self.has_kernel and x.shape[0] == 1 and longest:
            sequence, state = self.run(front, state)
        else:
            steps = torch.arange(front.shape[1], device=x.device)
            sequence, state = self._looped(front, state, steps < counts[:, -1:])
        sequence = torch.cat((torch.zeros_like(sequence[:, :1]), sequence), 1)
        return _steps(sequence, counts if self.return_sequences else counts[:, -1:]), state

    def _packed(self, x: Tensor, counts: Tensor, order: Tensor, state: State) -> tuple[Tensor, State]:
        """The same with torch's kernel for packed sequences: each step computes only the rows that reach it.

        `counts [n, length]`: how many steps are unmasked so far; `order [n, length]`: the places of the unmasked steps.
        """
        longest = torch.argsort(counts[:, -1], descending=True, stable=True)  # rows sorted by length, longest first
        steps = torch.arange(x.shape[1], device=x.device).unsqueeze(1)
        step, nth = (counts[:, -1][longest] > steps).nonzero(as_tuple=True)  # for each step, the rows that reach it
        sizes = torch.bincount(step)
        rows = longest[nth]
        begun = longest[: int(sizes[0])]
        outputs, last = self.kernel(x[rows, order[rows, step]], tuple(each[begun] for each in state), sizes.cpu())
        state = tuple(first.index_copy(0, begun, each) for first, each in zip(state, last, strict=True))
        places = counts if self.return_sequences else counts[:, -1:]
        starts = sizes.cumsum(0) - sizes
        at = starts[(places - 1).clamp_min(0)] + torch.argsort(longest).unsqueeze(1)
        found = outputs[torch.where(places > 0, at, 0)]
        return torch.where((places > 0).unsqueeze(-1), found, 0.0), state

    def run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The outputs of all steps and the last state: by torch's kernel, or step by step under a compiler.

        torch's compilers unroll recurrent kernels, which would fix an exported length.
        """
        if readable(x) and not x.shape[1]:
            raise InputError("a recurrent layer needs at least one step, but its sequence has none")
        if self.has_kernel and readable(x) and not forward_ad_is_on():
            return self.kernel(x, state)
        return self._looped(x, state, None)

    def _looped(self, x: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """The same step by step; a step that the mask leaves out keeps the state and repeats the output."""
        inputs = self.inputs(x)
        if _exporting() and _scan is not None:
            return self._scanned(inputs, state, mask)
        outputs: list[Tensor] = []
        output = torch.zeros_like(state[0])
        for step in range(x.shape[1]):
            output, *kept = self._stepped(inputs[:, step], None if mask is None else mask[:, step], output, state)
            state = tuple(kept)
            outputs.append(output)
        return torch.stack(outputs, 1), state

    def _stepped(self, inputs: Tensor, on: Tensor | None, output: Tensor, state: State) -> State:
        """The output and the state after one step, which rows with `on [n]` False do not take."""
        new = self.step(inputs, *state)
        if on is None:
            return (new[0], *new)
        on = _beside(on, new[0])
        kept = (torch.where(on, after, before) for after, before in zip(new, state, strict=True))
        return (torch.where(on, new[0], output), *kept)

    def _scanned(self, inputs: Tensor, state: State, mask: Tensor | None) -> tuple[Tensor, State]:
        """The same as one scan, for any length."""

        def step(carried: State, taken: State) -> tuple[State, Tensor]:
            given, *on = taken
            output, *kept = self._stepped(given, on[0] if on else None, carried[0], carried[1:])
            return (output, *(each.clone() for each in kept)), output.clone()

        # `scan` treats one tensor in two places as one state
        carried = (torch.zeros_like(state[0]), *(each.clone() for each in state))
        taken = (inputs,) if mask is None else (inputs, mask)
        (_, *last), outputs = _scan(step, carried, tuple(each.transpose(0, 1).contiguous() for each in taken), dim=0)
        return outputs.transpose(0, 1), tuple(last)

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        """The same with torch's kernel; with `sizes`, for packed steps `[n, input_size]`, where `sizes` are the rows of
        each step."""
        raise NotImplementedError

    def _called(self, function: Any, x: Tensor, state: Any, weights: list[Tensor], sizes: Tensor | None) -> Any:
        options = (weights, self.bias_ih is not None, 1, 0.0, False, False)
        operands = (x, state, *options, True) if sizes is None else (x, sizes, state, *options)
        rows = x.shape[0] if sizes is None else int(sizes[0])
        if not readable(x) or not x.is_cpu or rows * self.weight_hh.numel() >= _SHARED:
            return function(*operands)
        return on_one_thread(function, *operands)

    def inputs(self, x: Tensor) -> Tensor:
        """What all steps take from the sequence: `[n, length, input_size] -> [n, length, gates * hidden_size]`."""
        return F.linear(x, self.weight_ih, self.bias_ih)

    def multiplications(self, x: torch.Size) -> float:
        """The number of multiplications for a sequence of this shape."""
        return float(x[:-1].numel() * (self.weight_ih.numel() + self.weight_hh.numel()))

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        """The state after one step: `[n, gates * hidden_size], [n, hidden_size] ... -> [n, hidden_size] ...`."""
        raise NotImplementedError

    def _weights(self, bias_hh: Tensor | None = None) -> list[Tensor]:
        """The weights in the order of torch's kernels, which take two biases or none."""
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
        given += [] if self.activation == "tanh" else [f"activation={self.activation!r}"]
        bias = [] if self.bias else ["bias=False"]
        return ", ".join([str(self.input_size), str(self.hidden_size), *bias, *given])


_SHARED = 8e6
"""Multiplications of a step from which threads share it: each step wakes them some five times, for a twentieth of a ms."""


def _steps(x: Tensor, places: Tensor) -> Tensor:
    """The steps of each row at the given positions: `[n, length, ...], [n, m] -> [n, m, ...]`."""
    index = _beside(places, x).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)  # `take_along_dim` fixes an exported length


def _beside(x: Tensor, values: Tensor) -> Tensor:
    """`x` with axes of size 1 behind its own, for as many as `values` has."""
    return x.reshape(*x.shape, *[1] * (values.ndim - x.ndim))


@module()
class SimpleRNN(Recurrent):
    """`h = tanh(W_ih x + W_hh h + b)`, or with another `activation`; operands and results as in `Recurrent`. Source:
    Keras SimpleRNN."""

    def make_weights(self, bias: bool) -> None:
        super().make_weights(bias)
        self.cell = small_layers.Cell("rnn", self.activation, "linear", self.zero_output, self.slope, 0.0)

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        found, h = self._called(torch.rnn_tanh, x, state[0].unsqueeze(0), self._weights(), sizes)
        return found, (h[0],)

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        return (self.act(inputs + F.linear(state[0], self.weight_hh)),)


class Gated(Recurrent):
    """A recurrent layer with gates, of which `recurrent_activation` is the activation."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output: bool = False,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        slope: float = 0.2,
    ) -> None:
        results = (return_sequences, return_state, go_backwards, zero_output)
        super().__init__(input_size, hidden_size, bias, *results, activation, slope)
        self.recurrent_activation, self.gate = recurrent_activation, named_activation(recurrent_activation, slope)
        self.has_kernel = self.in_torch and (activation, recurrent_activation) == ("tanh", "sigmoid")

    def extra_repr(self) -> str:
        other = self.recurrent_activation
        return super().extra_repr() + ("" if other == "sigmoid" else f", recurrent_activation={other!r}")


@module()
class LSTM(Gated):
    """`nn.LSTM` with one bias and the state `h, c`; operands and results as in `Recurrent`.

    `forget_bias` is added to the forget gate. Source: Keras LSTM, tf.compat.v1.nn.rnn_cell.LSTMCell.
    """

    gate_count = 4
    states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output: bool = False,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        slope: float = 0.2,
        forget_bias: float = 0.0,
    ) -> None:
        results = (return_sequences, return_state, go_backwards, zero_output)
        super().__init__(input_size, hidden_size, bias, *results, activation, recurrent_activation, slope)
        self.forget_bias = forget_bias
        self.has_kernel = self.has_kernel and (bias or not forget_bias)
        self.cell = small_layers.Cell("lstm", activation, recurrent_activation, zero_output, slope, forget_bias)

    def _forget(self) -> Tensor | None:
        """The number that is added to the forget gate, as a bias."""
        if self.bias_ih is None or not self.forget_bias:
            return None
        gates = [torch.full_like(self.bias_ih[: self.hidden_size], value) for value in (0.0, self.forget_bias)]
        return torch.cat([gates[0], gates[1], gates[0], gates[0]])

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        start = [each.unsqueeze(0) for each in state]
        found, h, c = self._called(torch.lstm, x, start, self._weights(self._forget()), sizes)
        return found, (h[0], c[0])

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        h, c = state
        i, f, g, o = (inputs + F.linear(h, self.weight_hh)).chunk(4, -1)
        c = self.gate(f + self.forget_bias if self.forget_bias else f) * c + self.gate(i) * self.act(g)
        return self.gate(o) * self.act(c), c

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", forget_bias={self.forget_bias:g}" if self.forget_bias else "")


@module()
class GRU(Gated):
    """`nn.GRU`; operands and results as in `Recurrent`.

    `reset_after` False: the state is reset before its matmul, and there is a single bias, which torch's GRU does not
    support.
    Source: Keras GRU.
    """

    gate_count = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        zero_output: bool = False,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        slope: float = 0.2,
        reset_after: bool = True,
    ) -> None:
        results = (return_sequences, return_state, go_backwards, zero_output)
        super().__init__(input_size, hidden_size, bias, *results, activation, recurrent_activation, slope)
        self.reset_after = reset_after
        self.has_kernel = self.has_kernel and reset_after
        self.bias_hh = nn.Parameter(torch.zeros(3 * hidden_size)) if bias and reset_after else None
        kind = "gru reset after" if reset_after else "gru reset before"
        self.cell = small_layers.Cell(kind, activation, recurrent_activation, zero_output, slope, 0.0)

    def kernel(self, x: Tensor, state: State, sizes: Tensor | None = None) -> tuple[Tensor, State]:
        found, h = self._called(torch.gru, x, state[0].unsqueeze(0), self._weights(self.bias_hh), sizes)
        return found, (h[0],)

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        (h,) = state
        r, z, n = inputs.chunk(3, -1)
        if self.reset_after:
            r_h, z_h, n_h = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, -1)
            r, z = self.gate(r + r_h), self.gate(z + z_h)
            n = self.act(n + r * n_h)
        else:
            r_h, z_h = F.linear(h, self.weight_hh[: 2 * self.hidden_size]).chunk(2, -1)
            r, z = self.gate(r + r_h), self.gate(z + z_h)
            n = self.act(n + F.linear(r * h, self.weight_hh[2 * self.hidden_size :]))
        return ((1 - z) * n + z * h,)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.reset_after else ", reset_after=False")


@module()
class ConcatGRU(Gated):
    """A GRU whose products take `[x, h]`, one beside the other: reset and update gate by `gates`, the candidate by
    `candidate`, before which the state is reset. Operands and results as in `Recurrent`.

    Source: tf.compat.v1.nn.rnn_cell.GRUCell.
    """

    gate_count = 3
    in_torch = False

    def make_weights(self, bias: bool) -> None:
        width = self.input_size + self.hidden_size
        self.gates = nn.Linear(width, 2 * self.hidden_size, bias)
        self.candidate = nn.Linear(width, self.hidden_size, bias)

    def inputs(self, x: Tensor) -> Tensor:
        parts = [F.linear(x, each.weight[:, : self.input_size], each.bias) for each in (self.gates, self.candidate)]
        return torch.cat(parts, -1)

    def step(self, inputs: Tensor, *state: Tensor) -> State:
        (h,) = state
        gates, candidate = inputs[:, : 2 * self.hidden_size], inputs[:, 2 * self.hidden_size :]
        r, z = self.gate(gates + F.linear(h, self.gates.weight[:, self.input_size :])).chunk(2, -1)
        n = self.act(candidate + F.linear(r * h, self.candidate.weight[:, self.input_size :]))
        return ((1 - z) * n + z * h,)

    def multiplications(self, x: torch.Size) -> float:
        return float(x[:-1].numel() * (self.gates.weight.numel() + self.candidate.weight.numel()))
