"""Elementwise math, comparisons and dtype conversions, with the semantics of TensorFlow's CPU kernels."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import Dtype, torch_dtype
from torch_towers.graph.registry import Number, Spec, Strings, elementwise, op
from torch_towers.kernels import encodings
from torch_towers.kernels.fast_path import readable

Bits = Literal["", "f16", "bf16", "f32", "f64"]
"""A float of the graph, by how many bits it has; none."""


def pair(a: Number, b: Number) -> tuple[Tensor, Tensor]:
    """Both operands as tensors: a literal gets the other's dtype and device."""
    if not isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        return torch.as_tensor(a, dtype=b.dtype, device=b.device), b
    return a, b if isinstance(b, Tensor) else torch.as_tensor(b, dtype=a.dtype, device=a.device)


# -- one operand --------------------------------------------------------------------------------------------------------


def _unary(name: str, function: Callable[[Tensor], Tensor], source: str) -> None:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    apply.__doc__ = f"`{name}(x)`, elementwise: `[...] -> [...]`. Source: tf.raw_ops.{source}."
    op(name=name, infer=None if name in _OF_OTHER_DTYPE else elementwise())(apply)


def _sign(x: Tensor) -> Tensor:
    """-1, 0 or 1, and NaN for NaN, where torch.sign gives 0."""
    return torch.where(torch.isnan(x), x, torch.sign(x)) if x.is_floating_point() else torch.sign(x)


def _square(x: Tensor) -> Tensor:
    return x * x


def _softplus(x: Tensor) -> Tensor:
    """Uses TensorFlow's thresholds: `log(eps) + 2` of the dtype on both sides; torch has one threshold, 20."""
    threshold = float(torch.log(torch.tensor(torch.finfo(x.dtype).eps, dtype=torch.float64))) + 2.0
    middle = torch.log1p(torch.exp(x))
    return torch.where(x > -threshold, x, torch.where(x < threshold, torch.exp(x), middle))


def _ndtri(x: Tensor) -> Tensor:
    """torch has no half-precision kernel."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.special.ndtri(wide).to(x.dtype)  # type: ignore[reportUnknownMemberType,reportUnknownVariableType]


UNARY: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "neg": (torch.neg, "Neg"),
    "abs": (torch.abs, "Abs"),
    "sign": (_sign, "Sign"),
    "square": (_square, "Square"),
    "sqrt": (torch.sqrt, "Sqrt"),
    "rsqrt": (torch.rsqrt, "Rsqrt"),
    "reciprocal": (torch.reciprocal, "Reciprocal"),
    "exp": (torch.exp, "Exp"),
    "expm1": (torch.expm1, "Expm1"),
    "log": (torch.log, "Log"),
    "log1p": (torch.log1p, "Log1p"),
    "erf": (torch.erf, "Erf"),
    "erfc": (torch.erfc, "Erfc"),
    "erfinv": (torch.erfinv, "Erfinv"),
    "ndtri": (_ndtri, "Ndtri"),
    "lgamma": (torch.lgamma, "Lgamma"),
    "digamma": (torch.digamma, "Digamma"),
    "sin": (torch.sin, "Sin"),
    "cos": (torch.cos, "Cos"),
    "tan": (torch.tan, "Tan"),
    "asin": (torch.asin, "Asin"),
    "acos": (torch.acos, "Acos"),
    "atan": (torch.atan, "Atan"),
    "sinh": (torch.sinh, "Sinh"),
    "cosh": (torch.cosh, "Cosh"),
    "tanh": (torch.tanh, "Tanh"),
    "asinh": (torch.asinh, "Asinh"),
    "acosh": (torch.acosh, "Acosh"),
    "atanh": (torch.atanh, "Atanh"),
    "sigmoid": (torch.sigmoid, "Sigmoid"),
    "softplus": (_softplus, "Softplus"),
    "floor": (torch.floor, "Floor"),
    "ceil": (torch.ceil, "Ceil"),
    "round": (torch.round, "Round: halves go to the even neighbour"),
    "isnan": (torch.isnan, "IsNan"),
    "isinf": (torch.isinf, "IsInf"),
    "isfinite": (torch.isfinite, "IsFinite"),
    "logical_not": (torch.logical_not, "LogicalNot"),
    "bitwise_not": (torch.bitwise_not, "Invert"),
    "real": (torch.real, "Real"),
    "imag": (torch.imag, "Imag"),
    "conj": (torch.conj_physical, "Conj"),
    "angle": (torch.angle, "Angle"),
}
_OF_OTHER_DTYPE = frozenset({"abs", "reciprocal", "isnan", "isinf", "isfinite", "real", "imag", "angle"})
"""Ops whose result may have another dtype than their operand."""
for _name, (_function, _source) in UNARY.items():
    _unary(_name, _function, _source)


# -- two operands -------------------------------------------------------------------------------------------------------


def _operator(name: str, function: Callable[[Any, Any], Any], source: str) -> None:
    """Ops that are Python operators, so that literals stay literals."""

    def apply(a: Number, b: Number) -> Tensor:
        return function(a, b)

    apply.__doc__ = f"`{name}(a, b)`, elementwise with broadcasting. Source: tf.raw_ops.{source}."
    op(name=name)(apply)


def _binary(name: str, function: Callable[[Tensor, Tensor], Tensor], source: str) -> None:
    def apply(a: Number, b: Number) -> Tensor:
        return function(*pair(a, b))

    apply.__doc__ = f"`{name}(a, b)`, elementwise with broadcasting. Source: tf.raw_ops.{source}."
    op(name=name)(apply)


def _divides(a: Tensor, b: Tensor, rounding: str) -> Tensor:
    """Integer division. The lowest integer divided by -1, which traps in hardware, gives itself as in TensorFlow."""
    if b.ndim == 0 and b.is_cpu and readable(b) and int(b) != -1:
        return torch.div(a, b, rounding_mode=rounding)
    minus = b == -1
    return torch.where(minus, -a, torch.div(a, torch.where(minus, 1, b), rounding_mode=rounding))


def _floor_div(a: Tensor, b: Tensor) -> Tensor:
    return torch.floor(a / b) if a.is_floating_point() else _divides(a, b, "floor")


def _trunc_div(a: Tensor, b: Tensor) -> Tensor:
    return _divides(a, b, "trunc")


def _floor_mod(a: Tensor, b: Tensor) -> Tensor:
    return torch.remainder(a, b) if a.is_floating_point() else a - b * _divides(a, b, "floor")


def _trunc_mod(a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if a.is_floating_point() else a - b * _divides(a, b, "trunc")


def _unless_zero(zero: Tensor, value: Tensor) -> Tensor:
    return torch.where(zero == 0, torch.zeros((), dtype=value.dtype, device=value.device), value)


def _div_no_nan(a: Tensor, b: Tensor) -> Tensor:
    return _unless_zero(b, a / b)


def _mul_no_nan(a: Tensor, b: Tensor) -> Tensor:
    return _unless_zero(b, a * b)


def _xdivy(a: Tensor, b: Tensor) -> Tensor:
    return _unless_zero(a, a / b)


def _xlogy(a: Tensor, b: Tensor) -> Tensor:
    return _unless_zero(a, a * torch.log(b))


def _xlog1py(a: Tensor, b: Tensor) -> Tensor:
    return _unless_zero(a, a * torch.log1p(b))


def _squared_difference(a: Tensor, b: Tensor) -> Tensor:
    return _square(a - b)


def _shift(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Clamps shift counts outside `[0, bits - 1]`, undefined in C, as TensorFlow does."""
    return lambda a, b: function(a, torch.clamp(b, 0, torch.iinfo(a.dtype).bits - 1))


def _true_div(a: Any, b: Any) -> Any:
    """Rounds once, as in TensorFlow: torch computes `number / tensor` as `number * (1 / tensor)`."""
    return a / b if isinstance(a, Tensor) or not isinstance(b, Tensor) else torch.div(*pair(a, b))


_OPERATORS: tuple[tuple[str, Callable[[Any, Any], Any], str], ...] = (
    ("sub", operator.sub, "Sub"),
    ("mul", operator.mul, "Mul"),
    ("div", _true_div, "RealDiv"),
    ("less", operator.lt, "Less"),
    ("less_equal", operator.le, "LessEqual"),
    ("greater", operator.gt, "Greater"),
    ("greater_equal", operator.ge, "GreaterEqual"),
)
for _name, _function, _source in _OPERATORS:
    _operator(_name, _function, _source)

for _name, _function, _source in (
    ("floor_div", _floor_div, "FloorDiv"),
    ("trunc_div", _trunc_div, "TruncateDiv"),
    ("floor_mod", _floor_mod, "FloorMod"),
    ("trunc_mod", _trunc_mod, "TruncateMod"),
    ("div_no_nan", _div_no_nan, "DivNoNan"),
    ("mul_no_nan", _mul_no_nan, "MulNoNan"),
    ("xdivy", _xdivy, "Xdivy"),
    ("xlogy", _xlogy, "Xlogy"),
    ("xlog1py", _xlog1py, "Xlog1py"),
    ("maximum", torch.maximum, "Maximum"),
    ("minimum", torch.minimum, "Minimum"),
    ("pow", torch.pow, "Pow"),
    ("atan2", torch.atan2, "Atan2"),
    ("squared_difference", _squared_difference, "SquaredDifference"),
    ("logical_and", torch.logical_and, "LogicalAnd"),
    ("logical_or", torch.logical_or, "LogicalOr"),
    ("bitwise_and", torch.bitwise_and, "BitwiseAnd"),
    ("bitwise_or", torch.bitwise_or, "BitwiseOr"),
    ("bitwise_xor", torch.bitwise_xor, "BitwiseXor"),
    ("left_shift", _shift(torch.bitwise_left_shift), "LeftShift"),
    ("right_shift", _shift(torch.bitwise_right_shift), "RightShift"),
    ("complex", torch.complex, "Complex"),
):
    _binary(_name, _function, _source)


@op()
def add(a: Number | Strings, b: Number | Strings) -> Tensor | Strings:
    """`a + b`, elementwise with broadcasting; concatenates strings. Source: tf.raw_ops.AddV2, tf.raw_ops.Add."""
    return a + b  # type: ignore[operator,return-value]


def _equal(a: Any, b: Any) -> Tensor:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a == b
    return torch.as_tensor(np.asarray(a == b, dtype=np.bool_))


@op()
def equal(a: Number | Strings, b: Number | Strings) -> Tensor:
    """`a == b`, elementwise with broadcasting: `[...], [...] -> [...]` bool. Source: tf.raw_ops.Equal."""
    return _equal(a, b)


@op()
def not_equal(a: Number | Strings, b: Number | Strings) -> Tensor:
    """`a != b`, elementwise with broadcasting: `[...], [...] -> [...]` bool. Source: tf.raw_ops.NotEqual."""
    other: Any = b
    return torch.ne(a, other) if isinstance(a, Tensor) else ~_equal(a, b)


@op()
def where(condition: Tensor, a: Tensor | Strings, b: Tensor | Strings) -> Tensor | Strings:
    """`a` where `condition` is true, else `b`, with broadcasting. Source: tf.raw_ops.SelectV2."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.where(condition, a, b)
    return np.where(condition.numpy(), a, b)  # type: ignore[reportArgumentType]


@op(stage="early", infer=elementwise())
def nonzero(x: Tensor) -> Tensor:
    """`x` unchanged. Errors: `InputError` if a divisor is 0. Source: tf.raw_ops.FloorDiv on integers."""
    if readable(x) and bool((x == 0).any()):
        raise InputError("Integer division by zero")
    return x


@op(stage="early", infer=elementwise())
def nonnegative(x: Tensor) -> Tensor:
    """`x` unchanged. Errors: `InputError` if an exponent is negative. Source: tf.raw_ops.Pow on integers."""
    if readable(x) and bool((x < 0).any()):
        raise InputError("Integers to negative integer powers are not allowed")
    return x


# -- dtypes -------------------------------------------------------------------------------------------------------------


def _cast_spec(x: Spec, *, dtype: Dtype) -> list[Spec]:
    return [(dtype, x[1])]


@op(infer=_cast_spec)
def cast(x: Tensor, *, dtype: Dtype) -> Tensor:
    """`x` in another dtype: `[...] -> [...]`. Source: tf.raw_ops.Cast, except from floats to integers."""
    return x.to(torch_dtype(dtype))


@op(stage="early")
def to_integer(x: Tensor, *, dtype: Dtype) -> Tensor:
    """Floats as integers, rounded towards zero: `[...] -> [...]`.

    Values out of range give what TensorFlow's CPU kernel gives: the lowest int32 or int64 for NaN, infinities and
    overflow. 8 and 16 bits are truncated; there TensorFlow's result depends on the position in the tensor.
    Source: tf.raw_ops.Cast on x86.
    """
    if dtype in ("int64", "int32"):
        return _truncated(x, torch_dtype(dtype))
    if dtype == "uint64":
        high = (x >= 2.0**63) & (x < 2.0**64)
        low = _truncated(torch.where(high, x - 2.0**63, x), torch.int64)
        return torch.where(high, low ^ torch.iinfo(torch.int64).min, low).view(torch.uint64)
    if dtype == "uint32":
        fits = (x >= 0) & (x < 2.0**32)
        return torch.where(fits, _truncated(x, torch.int64), _truncated(x, torch.int32)).to(torch.uint32)
    return _truncated(x, torch.int32).to(torch_dtype(dtype))


def _truncated(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The CPU's conversion spelled out for GPUs, which saturate: the lowest integer for all values out of range."""
    if x.device.type == "cpu":
        return x.to(dtype)
    info = torch.iinfo(dtype)
    fits = (x > float(info.min) - 1.0) & (x < -float(info.min))
    return torch.where(fits, x, float(info.min)).to(dtype)


@op()
def truncate_mantissa(x: Tensor, *, dtype: Dtype) -> Tensor:
    """`x` in a narrower float dtype, rounded towards zero: `[...] -> [...]`. Source: tf.raw_ops.Cast with Truncate."""
    dropped = _mantissa(x.dtype) - _mantissa(torch_dtype(dtype))
    if dropped <= 0:
        return x.to(torch_dtype(dtype))
    bits = x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
    return torch.where(torch.isnan(x), x, (bits & -(1 << dropped)).view(x.dtype)).to(torch_dtype(dtype))


def _mantissa(dtype: torch.dtype) -> int:
    return -int(torch.log2(torch.tensor(torch.finfo(dtype).eps, dtype=torch.float64)))


@op()
def bitcast(x: Tensor, *, dtype: Dtype, reads: Bits = "", gives: Bits = "") -> Tensor:
    """The bits of `x` as another dtype: `[...] -> [...]`, or `[..., n]` if it is n times narrower, and the reverse.

    `reads` and `gives` ("f32", "f16", ...) are the graph's float dtypes on either side: their bits count, whatever the
    precision of the tower. Source: tf.raw_ops.Bitcast.
    """
    x = x.to(_FLOAT_BITS[reads]) if reads else x
    target = _FLOAT_BITS[gives] if gives else torch_dtype(dtype)
    if x.element_size() > target.itemsize:
        found = x.contiguous().unsqueeze(-1).view(target)
    else:
        found = x.contiguous().view(target)
        found = found.squeeze(-1) if x.element_size() < target.itemsize else found
    return found.to(torch_dtype(dtype))


_FLOAT_BITS: dict[str, torch.dtype] = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
}
"""Names of float dtypes that a change of precision does not replace."""


@op(stage="early")
def bucketize(x: Tensor, *, boundaries: tuple[float, ...]) -> Tensor:
    """The number of boundaries less than or equal to each value: `[...] -> [...]` int32.

    Boundaries are float32 and integers are compared in float32, as in TensorFlow, whose threads flush denormals to
    zero.
    Source: tf.raw_ops.Bucketize.
    """
    values = x if x.dtype == torch.float64 else x.to(torch.float32)
    flush = _some_near_zero(boundaries)
    found = encodings.buckets(values, boundaries, flush)
    if found is not None:
        return found
    if flush:
        values = torch.where(values.abs() < torch.finfo(values.dtype).tiny, 0.0, values)
    make = _edges if readable(x) and x.device.type == "cpu" else _edges.__wrapped__
    return torch.bucketize(values, make(boundaries, values.dtype, x.device), right=True, out_int32=True)


@lru_cache(maxsize=256)
def _some_near_zero(boundaries: tuple[float, ...]) -> bool:
    """Whether a denormal may be in another bucket than zero."""
    return any(abs(edge) < 2.0**-120 for edge in boundaries)


@lru_cache(maxsize=256)
def _edges(boundaries: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Boundaries as a tensor; memoized if values may be read, since a lookup is cheaper."""
    return torch.tensor(boundaries, dtype=torch.float32, device=device).to(dtype)


@op(stage="early")
def searchsorted(sorted_rows: Tensor, values: Tensor, *, right: bool, dtype: Dtype) -> Tensor:
    """The insertion position of each value in its sorted row: `[batch, n], [batch, m] -> [batch, m]`.

    Source: tf.raw_ops.UpperBound (`right`), tf.raw_ops.LowerBound.
    """
    return torch.searchsorted(sorted_rows, values, right=right).to(torch_dtype(dtype))
