"""Measures how far rounding can move two correct computations of one graph apart, element by element.

Stochastic arithmetic (Monte Carlo arithmetic, Parker 1997; CESTAC, Vignes 1993): the graph runs in float64, and the
result of each op is perturbed randomly by as much as its own rounding could be. How far an output moves is how far
rounding propagates in this graph, including what the graph does to errors: a relu drops them, a difference magnifies
them.

An op that sums n values is perturbed by about sqrt(n) roundings (Higham and Mary 2019: errors of a sum grow like the
square root), in an operand, where values cancel, and in its result, where they do not. An op that moves or compares
values is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from torch_towers.program.binding import getter
from torch_towers.program.program import Program
from torch_towers.tower import Tower

UNIT = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
"""The maximum relative change by one rounding: half the spacing of floats around 1."""

_SUM = 0.5
"""Roundings of a sum of n values, over sqrt(n). Partial sums of equal values average sqrt(n) / 3, blockwise sums
less."""
_FUNCTION = 4.0
"""Roundings of exp, tanh, erf and the like: vector libraries guarantee 1 to 4 ulp (Intel VML, SLEEF)."""

Values = dict[str, Any]


class Disturbances:
    """A tower's graph in float64, op by op, for repeated runs with different roundings."""

    def __init__(self, plain: Tower, exact: Tower) -> None:
        """`plain`: the tower without lifting; `exact`: the same in float64."""
        self._plain, self._exact = plain, exact
        self._stock = torch.empty(0, dtype=torch.float64)

    def run(self, batch: Mapping[str, Any], seed: int, finish: Callable[[Values], Values] = dict) -> Values:
        """The encoder's outputs for a batch, each node perturbed by its own rounding. `finish` is perturbed like
        float32.

        Ids and other decisions of the preprocessing are fixed: a rounding there would be a different id.
        """
        with torch.no_grad():
            prepared = self._plain.preprocess(dict(batch))
            given = {spec.name: prepared[spec.name] for spec in self._plain.encoder.graph.inputs}
            units = _units(self._plain.encoder, given)
            with Disturbed(seed, self._stock) as mode:
                for name, value in given.items():
                    wide = _wide(value)
                    computed = name not in batch  # by the preprocessing, in float32
                    given[name] = mode.moved(wide, _FUNCTION * UNIT[torch.float32]) if computed else wide
                found = _disturbed(self._exact.encoder, given, units, mode)
                mode.unit = UNIT[torch.float32]
                found = finish(found)
            self._stock = mode.stock
            return found


def _units(program: Program, inputs: Mapping[str, Any]) -> dict[str, float]:
    """The rounding unit of every node: that of the lowest precision among its float results. Nodes without one are
    omitted."""
    found: dict[str, float] = {}
    env: Values = dict(inputs)
    for name, run in program.steps:
        env[name] = run(program, env)
        units = [UNIT[dtype] for dtype in _float_dtypes(env[name])]
        if units:
            found[name] = max(units)
    return found


def _disturbed(program: Program, inputs: Mapping[str, Any], units: Mapping[str, float], mode: Disturbed) -> Values:
    casts = {node.name for node in program.graph.nodes if node.op == "cast"}
    env: Values = dict(inputs)
    for name, run in program.steps:
        mode.unit = units.get(name)
        env[name] = run(program, env)
        if name in casts and mode.unit is not None:  # in float64 the cast has no effect
            env[name] = mode.moved(env[name], mode.unit)
    return {name: getter(ref)(env) for name, ref in program.graph.outputs.items()}


def _float_dtypes(value: Any) -> list[torch.dtype]:
    """The float dtypes of the tensors in `value`; a complex number is two floats."""
    if isinstance(value, Tensor):
        dtype = value.dtype.to_real()
        return [dtype] if dtype in UNIT else []
    return [dtype for item in value for dtype in _float_dtypes(item)] if isinstance(value, (tuple, list)) else []


def _wide(value: Any) -> Any:
    """Floats as float64, complex numbers as complex128, anything else unchanged."""
    if not _float_dtypes(value) or not isinstance(value, Tensor):
        return value
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


class Disturbed(TorchDispatchMode):
    """While active, perturbs every op on float64 as if at precision `unit`; None disables it."""

    def __init__(self, seed: int, stock: Tensor) -> None:
        super().__init__()
        self.unit: float | None = None
        self.stock = stock  # of random numbers
        self._random = torch.Generator().manual_seed(seed)
        self._flushes = seed % 2 == 0

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.strip("_")
        if self.unit is None or func.is_view or (name in EXACT and not _is_length(name, args)):
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if name in TRANSFORMS:
            return self._transformed(result, args[0], args[1])
        if func._schema.is_mutable:  # in-place: the tensor it wrote to
            return args[0].copy_(self.moved(args[0], self.unit)) if isinstance(args[0], Tensor) else result
        amount = self.unit * (_FUNCTION if name in FUNCTIONS else 1.0)
        terms = _terms(name, args, result)
        if terms:
            sums = _SUM * math.sqrt(terms) * min(self.unit, UNIT[torch.float32])  # half precision is summed in float32
            result = func(*self._one_moved(args, 1.5 * sums), **kwargs)
            amount += sums
        return _each(result, lambda value: self.moved(value, amount))

    def _transformed(self, result: Tensor, operand: Tensor, axes: list[int]) -> Tensor:
        """The result of an FFT of n values, perturbed by sqrt(log2 n) roundings of its root mean square.

        Every element has an error of that scale, however small it is itself (Gentleman and Sande 1966; Schatzman 1996).
        """
        assert self.unit is not None
        count = max(math.prod(value.shape[axis] for axis in axes) for value in (result, operand))
        scale = result.abs().square().mean(axes, keepdim=True).sqrt()
        noise = self._noise(result.numel())
        if result.is_complex():
            noise = torch.complex(noise, self._noise(result.numel()))
        return result + noise.view(result.shape) * scale * (self.unit * math.sqrt(math.log2(max(count, 2))))

    def _one_moved(self, args: Any, amount: float) -> Any:
        """`args` with the smallest of its float tensors perturbed: in a product any factor will do."""
        tensors = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.dtype in _WIDE and arg.ndim]
        if not tensors:
            return args
        last = max(args[i].ndim for i in tensors)
        which = min((i for i in tensors if args[i].ndim == last), key=lambda i: args[i].numel())  # excludes the bias
        return [self.moved(arg, amount) if i == which else arg for i, arg in enumerate(args)]

    def moved(self, value: Any, amount: float) -> Any:
        """`value` times 1 + at most `amount`, randomly for each element."""
        if not isinstance(value, Tensor) or value.dtype not in _WIDE or not value.numel():
            return value
        noise = self._noise(value.numel()).view(value.shape)
        value = torch.addcmul(value, value, noise.to(value.dtype), value=amount)
        return nn.functional.hardshrink(value, _TINY) if self._flushes and not value.is_complex() else value

    def _noise(self, count: int) -> Tensor:
        """`count` numbers between -1 and 1: a slice of precomputed ones, as drawing would dominate the run time."""
        if self.stock.numel() < 2 * count:
            self.stock = torch.empty(max(2 * count, 1 << 16), dtype=torch.float64).uniform_(
                -1, 1, generator=self._random
            )
        start = int(torch.randint(self.stock.numel() - count + 1, (), generator=self._random))
        return self.stock[start : start + count]


# Set here: torch wraps methods of the class body so that the first call imports torch's compiler, which takes seconds.
Disturbed.__torch_dispatch__ = Disturbed.dispatch  # type: ignore[method-assign]


def _is_length(name: str, args: Any) -> bool:
    """True for the absolute value of a complex number: a square root of a sum, not a change of sign."""
    return name == "abs" and args[0].is_complex()


def _each(result: Any, change: Callable[[Any], Any]) -> Any:
    return tuple(map(change, result)) if isinstance(result, (tuple, list)) else change(result)


def _terms(name: str, args: Any, result: Any) -> int:
    """The number of values that an op sums per element of its result; 0 if it does not sum."""
    if name in PRODUCTS:
        return int(args[PRODUCTS[name]].shape[-1])
    if name.endswith("convolution"):
        return math.prod(args[1].shape[1:])
    if name in SUMS and isinstance(args[0], Tensor):
        first = result[0] if isinstance(result, (tuple, list)) else result
        return max(2, args[0].numel() // max(first.numel(), 1))
    return int(args[0].shape[-1]) if name in ROWS and args[0].ndim else 0


_TINY = float(torch.finfo(torch.float32).tiny)  # kernels may flush smaller ones to zero
_WIDE = (torch.float64, torch.complex128)
PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0, "addmm": 1, "baddbmm": 1, "addmv": 1, "addbmm": 1}
"""Matrix products: the operand whose last axis is summed over."""
SUMS = frozenset(
    [
        "sum",
        "mean",
        "prod",
        "var",
        "std",
        "var_mean",
        "norm",
        "linalg_vector_norm",
        "avg_pool2d",
        "avg_pool3d",
        "avg_pool1d",
        "adaptive_avg_pool2d",
        "index_add",
        "scatter_add",
        "scatter_reduce",
        "segment_reduce",
        "embedding_bag",
        "embedding_bag_forward_only",
        "nansum",
        "trace",
    ]
)
"""Reductions of axes."""
ROWS = frozenset(
    [
        "cumsum",
        "cumprod",
        "logcumsumexp",
        "logsumexp",
        "softmax",
        "log_softmax",
        "native_layer_norm",
        "native_group_norm",
        "scaled_dot_product_flash_attention_for_cpu",
        "linalg_solve_ex",
        "linalg_inv_ex",
        "linalg_qr",
        "cholesky",
        "linalg_cholesky_ex",
        "linalg_eigh",
        "linalg_svd",
        "linalg_lu",
        "triangular_solve",
    ]
)
"""Sums along an axis that is kept."""
TRANSFORMS = frozenset(["fft_r2c", "fft_c2c", "fft_c2r"])
"""FFTs: every element of the result sums all values along some axes. The axes are the second argument."""
FUNCTIONS = frozenset(
    [
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "atan2",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "sigmoid",
        "log_sigmoid_forward",
        "erf",
        "erfc",
        "erfinv",
        "gelu",
        "elu",
        "selu",
        "celu",
        "silu",
        "mish",
        "softplus",
        "softmax",
        "log_softmax",
        "logsumexp",
        "pow",
        "rsqrt",
        "lgamma",
        "digamma",
        "polygamma",
        "igamma",
        "igammac",
        "native_layer_norm",
        "native_batch_norm",
        "native_batch_norm_legit_no_training",
        "native_group_norm",
        "logaddexp",
        "xlogy",
        "special_ndtri",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "hypot",
        "remainder",
        "fmod",
    ]
)
"""Ops with several roundings each."""
EXACT = frozenset(
    [
        "relu",
        "abs",
        "neg",
        "where",
        "clamp",
        "clamp_min",
        "clamp_max",
        "maximum",
        "minimum",
        "max",
        "min",
        "amax",
        "amin",
        "aminmax",
        "fmax",
        "fmin",
        "argmax",
        "argmin",
        "topk",
        "sort",
        "gather",
        "index",
        "index_select",
        "embedding",
        "cat",
        "stack",
        "copy",
        "clone",
        "to_copy",
        "fill",
        "zero",
        "zeros",
        "ones",
        "full",
        "empty",
        "arange",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
        "scalar_tensor",
        "lift_fresh_copy",
        "scatter",
        "index_put",
        "index_fill",
        "index_copy",
        "masked_fill",
        "masked_scatter",
        "masked_select",
        "flip",
        "roll",
        "constant_pad_nd",
        "reflection_pad1d",
        "reflection_pad2d",
        "replication_pad1d",
        "replication_pad2d",
        "repeat",
        "repeat_interleave",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "sign",
        "sgn",
        "floor",
        "ceil",
        "round",
        "trunc",
        "frac",
        "tril",
        "triu",
        "im2col",
        "col2im",
        "unfold_copy",
        "nan_to_num",
        "slice_scatter",
        "select_scatter",
        "diagonal_scatter",
        "diag_embed",
        "take",
        "unique2",
        "kthvalue",
        "median",
        "mode",
        "local_scalar_dense",
        "item",
        "nonzero",
        "uniform",
        "normal",
        "rand",
        "randn",
        "real",
        "imag",
        "complex",
        "view_as_complex",
        "view_as_real",
        "hardtanh",
        "threshold",
        "relu6",
        "upsample_nearest2d",
        "upsample_nearest_exact2d",
        "mean_of_one",
        "set",
        "resize",
        "pixel_shuffle",
        "pixel_unshuffle",
        "rot90",
        "cummax",
        "cummin",
        "split_with_sizes",
        "unbind_copy",
        "conj_physical",
        "ldexp",
    ]
)
"""Ops that move, choose or compare values."""
