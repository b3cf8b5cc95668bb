"""Arithmetic, comparisons, dtype conversions, and reductions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import LISTED, Constant, Dimensions, Sizes, Value
from porting.converters.random import Uniform
from porting.errors import PortingError
from torch_towers.errors import InputError
from torch_towers.graph.dtypes import FLOATS, torch_dtype

Emit = ConvertingEmitter

UNARY = {
    "Neg": "neg", "Abs": "abs", "Sign": "sign", "Square": "square", "Sqrt": "sqrt", "Rsqrt": "rsqrt", "Reciprocal": "reciprocal",
    "Inv": "reciprocal", "Exp": "exp", "Expm1": "expm1", "Log": "log", "Log1p": "log1p", "Erf": "erf", "Erfc": "erfc",
    "Erfinv": "erfinv", "Ndtri": "ndtri", "Lgamma": "lgamma", "Digamma": "digamma", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Tanh": "tanh", "Asinh": "asinh",
    "Acosh": "acosh", "Atanh": "atanh", "Sigmoid": "sigmoid", "Ceil": "ceil", "Rint": "round",
    "IsNan": "isnan", "IsInf": "isinf", "IsFinite": "isfinite", "LogicalNot": "logical_not", "Invert": "bitwise_not",
    "Conj": "conj",
}  # fmt: skip
BINARY = {
    "DivNoNan": "div_no_nan", "MulNoNan": "mul_no_nan", "Xdivy": "xdivy", "Xlogy": "xlogy", "Xlog1py": "xlog1py",
    "Maximum": "maximum", "Minimum": "minimum", "Atan2": "atan2", "SquaredDifference": "squared_difference",
    "Less": "less", "LessEqual": "less_equal", "Greater": "greater", "GreaterEqual": "greater_equal",
    "LogicalAnd": "logical_and", "LogicalOr": "logical_or", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor", "LeftShift": "left_shift", "RightShift": "right_shift",
}  # fmt: skip
DIVISIONS = {
    "Div": ("div", "trunc_div"), "RealDiv": ("div", "div"), "FloorDiv": ("floor_div", "floor_div"),
    "TruncateDiv": ("trunc_div", "trunc_div"), "Mod": ("trunc_mod", "trunc_mod"), "FloorMod": ("floor_mod", "floor_mod"),
    "TruncateMod": ("trunc_mod", "trunc_mod"),
}  # fmt: skip
"""The run-time op for floats, and for integers, where division by 0 is refused as in TensorFlow."""
REDUCTIONS = {
    "Sum": "reduce_sum", "Mean": "reduce_mean", "Prod": "reduce_prod", "Max": "reduce_max", "Min": "reduce_min",
    "All": "reduce_all", "Any": "reduce_any", "EuclideanNorm": "euclidean_norm",
}  # fmt: skip


def unary(op: str, name: str) -> None:
    """`op` is the run-time op `name` of one operand."""

    @converter(op)
    def convert(t: Emit, x: Any) -> Any:
        return t.call(name, x)


def binary(op: str, name: str) -> None:
    """`op` is the run-time op `name` of two operands."""

    @converter(op)
    def convert(t: Emit, a: Any, b: Any) -> Any:
        return t.call(name, a, b)


def _division(op: str, for_floats: str, for_integers: str) -> None:
    @converter(op)
    def convert(t: Emit, a: Any, b: Any) -> Any:
        if is_float(a):
            return t.call(for_floats, a, b)
        return t.call(for_integers, a, _checked(t, "nonzero", b, lambda divisors: (divisors != 0).all()))


def _reduction(op: str, name: str) -> None:
    @converter(op)
    def convert(t: Emit, x: Any, axes: tuple[int, ...], *, keep_dims: bool = False) -> Any:
        if not axes:
            return t.abs(x) if op == "EuclideanNorm" else x
        return t.call(name, x, axes=axes, keepdim=keep_dims)


for _op, _name in UNARY.items():
    unary(_op, _name)
for _op, _name in BINARY.items():
    binary(_op, _name)
for _op, _names in DIVISIONS.items():
    _division(_op, *_names)
for _op, _name in REDUCTIONS.items():
    _reduction(_op, _name)


def is_float(x: Any) -> bool:
    """True for floats, complex numbers, and values not known to be integers."""
    return x.dtype is None or x.dtype in FLOATS or x.dtype.startswith("complex")


def _checked(t: Emit, check: str, x: Any, holds: Any) -> Any:
    """`x` after a check of its values, unless it is a constant that passes."""
    read = isinstance(x, Constant) and math.prod(x.shape) <= LISTED
    return x if read and bool(holds(x.array)) else t.call(check, x)


@converter("Add", "AddV2")
def add(t: Emit, a: Any, b: Any) -> Any:
    if isinstance(a, Uniform) or isinstance(b, Uniform):
        return Uniform.added(a, b)
    return t.add(a, b)


@converter("Sub")
def sub(t: Emit, a: Any, b: Any) -> Any:
    return t.sub(a, b)


@converter("Mul")
def mul(t: Emit, a: Any, b: Any) -> Any:
    if isinstance(a, Uniform) or isinstance(b, Uniform):
        return Uniform.multiplied(a, b)
    return t.mul(a, b)


@converter("Floor")
def floor(t: Emit, x: Any) -> Any:
    return x.floor(t) if isinstance(x, Uniform) else t.floor(x)


@converter("AddN")
def add_n(t: Emit, *xs: Any) -> Any:
    total = xs[0]
    for x in xs[1:]:
        total = t.add(total, x)
    return total


@converter("Round", refuses="integers, which TensorFlow 2.21 rounds to zeros")
def round_(t: Emit, x: Any) -> Any:
    if not is_float(x):
        raise PortingError(
            f"Round {t.scope!r} rounds {x.dtype}, for which TensorFlow returns zeros: remove the rounding"
        )
    return t.round(x)


@converter("Pow")
def pow_(t: Emit, a: Any, b: Any) -> Any:
    return t.pow(a, b if is_float(a) else _checked(t, "nonnegative", b, lambda exponents: (exponents >= 0).all()))


@converter("Equal")
def equal(t: Emit, a: Any, b: Any, *, incompatible_shape_error: bool = True) -> Any:
    """Mismatched shapes are refused at run time, whatever `incompatible_shape_error` says."""
    return t.equal(a, b)


@converter("NotEqual")
def not_equal(t: Emit, a: Any, b: Any, *, incompatible_shape_error: bool = True) -> Any:
    return t.not_equal(a, b)


@converter("SelectV2")
def select_v2(t: Emit, condition: Any, a: Any, b: Any) -> Any:
    return t.where(condition, a, b)


@converter("Select", refuses="a condition or operands of unknown rank")
def select(t: Emit, condition: Any, a: Any, b: Any) -> Any:
    """A condition of rank 1 selects whole rows; otherwise all shapes are equal."""
    rank = None if a.shape is None else len(a.shape)
    if condition.shape is None or (len(condition.shape) == 1 and rank is None):
        raise PortingError(
            f"Select {t.scope!r}: the rank of its operands is unknown, so it is ambiguous what its condition selects"
        )
    if len(condition.shape) == 1:
        for _ in range((rank or 1) - 1):
            condition = t.unsqueeze(condition, axis=-1)
    return t.where(condition, a, b)


@converter("ClipByValue")
def clip_by_value(t: Emit, x: Any, low: Any, high: Any) -> Any:
    return t.maximum(t.minimum(x, high), low)


@converter("L2Loss")
def l2_loss(t: Emit, x: Any) -> Any:
    if x.shape is None:
        raise PortingError(f"L2Loss {t.scope!r}: the rank of its operand is unknown")
    squares = t.square(x)
    total = t.reduce_sum(squares, axes=tuple(range(len(x.shape)))) if x.shape else squares
    return t.div(total, Constant(_like(2.0, x)))


def _like(number: float, x: Any) -> Any:
    return torch.tensor(number, dtype=torch_dtype(x.dtype))


# -- dtypes -------------------------------------------------------------------------------------------------------------


@converter("Cast", refuses="casts to and from strings")
def cast(t: Emit, x: Any, *, SrcT: str, DstT: str, Truncate: bool = False) -> Any:
    if SrcT == DstT:
        return x
    if "string" in (SrcT, DstT):
        raise PortingError(
            f"Cast {t.scope!r} from {SrcT} to {DstT}: TensorFlow has no such cast, so the model is damaged"
        )
    narrows = SrcT in FLOATS and DstT in FLOATS and _MANTISSA[SrcT] > _MANTISSA[DstT]
    if Truncate and narrows:
        return t.truncate_mantissa(x, dtype=DstT)
    if SrcT in FLOATS and "int" in DstT:
        return t.to_integer(x, dtype=DstT)
    if SrcT.startswith("complex") and not DstT.startswith("complex"):
        return cast(t, t.real(x), SrcT="float32" if SrcT == "complex64" else "float64", DstT=DstT)
    found = t.cast(x, dtype=DstT)
    if isinstance(x, Sizes) and isinstance(found, Value):
        t.counts[found.ref] = x
    return found


_MANTISSA = {"bfloat16": 7, "float16": 10, "float32": 23, "float64": 52}


@converter("Bitcast")
def bitcast(t: Emit, x: Any, *, type: str) -> Any:
    return t.bitcast(x, dtype=type, reads=_BITS.get(x.dtype, ""), gives=_BITS.get(type, ""))


_BITS = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}


@converter("Complex", ignores=("Tout",))
def complex_(t: Emit, real: Any, imag: Any) -> Any:
    return t.complex(real, imag)


def _part(op: str, name: str) -> None:
    """The float part of a complex number, in the float dtype that the graph names, which follows the precision of a
    run."""

    @converter(op)
    def convert(t: Emit, x: Any, *, Tout: str = "float32") -> Any:
        return t.cast(t.call(name, x), dtype=Tout)


for _op, _name in (("Real", "real"), ("Imag", "imag"), ("ComplexAbs", "abs"), ("Angle", "angle")):
    _part(_op, _name)


# -- buckets and extremes -----------------------------------------------------------------------------------------------


@converter("Bucketize")
def bucketize(t: Emit, x: Any, *, boundaries: Any = ()) -> Any:
    if any(not a <= b for a, b in pairwise(boundaries)):
        raise InputError("Expected sorted boundaries")
    return t.bucketize(x, boundaries=tuple(boundaries))


@converter("UpperBound")
def upper_bound(t: Emit, rows: Any, values: Any, *, out_type: str = "int32") -> Any:
    return t.searchsorted(rows, values, right=True, dtype=out_type)


@converter("LowerBound")
def lower_bound(t: Emit, rows: Any, values: Any, *, out_type: str = "int32") -> Any:
    return t.searchsorted(rows, values, right=False, dtype=out_type)


@converter("ArgMax")
def argmax(t: Emit, x: Any, axis: int, *, output_type: str = "int64") -> Any:
    return t.argmax(x, axis=axis, dtype=output_type)


@converter("ArgMin")
def argmin(t: Emit, x: Any, axis: int, *, output_type: str = "int64") -> Any:
    return t.argmin(x, axis=axis, dtype=output_type)


@converter("Cumsum")
def cumsum(t: Emit, x: Any, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Any:
    return t.cumsum(x, axis=axis, exclusive=exclusive, reverse=reverse)


@converter("Cumprod")
def cumprod(t: Emit, x: Any, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Any:
    return t.cumprod(x, axis=axis, exclusive=exclusive, reverse=reverse)


@converter("TopKV2", outputs=("values", "indices"))
def top_k_v2(t: Emit, x: Any, k: Dimensions, *, sorted: bool = True, index_type: str = "int32") -> tuple[Value, Value]:
    """`sorted` False leaves the order to TensorFlow; here the result is always sorted."""
    return t.top_k(x, *k, dtype=index_type)


@converter("TopK", outputs=("values", "indices"))
def top_k(t: Emit, x: Any, *, k: int, sorted: bool = True) -> tuple[Value, Value]:
    return t.top_k(x, k, dtype="int32")
