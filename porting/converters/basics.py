"""Constants, variables, shapes, and ops that pass a value through."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.shape_arithmetic import mul, scalar, shape_of
from porting.conversion.values import Constant, Operand, Resource, Sizes, constant
from porting.errors import PortingError
from porting.names import clean, weight_name
from torch_towers.graph.dtypes import TORCH_DTYPES, torch_dtype

Emit = ConvertingEmitter


@converter("Const", ignores=("dtype",))
def const(t: Emit, *, value: Any, asset: str | None = None) -> Constant:
    found = _constant(value)
    array = found.array
    if not t.context.model.variables and isinstance(array, torch.Tensor) and array.is_floating_point() and array.ndim:
        return Constant(array, t.scope)  # it may be a weight of a frozen graph
    return found


def _constant(value: Any) -> Constant:
    if isinstance(value, torch.Tensor) or value.dtype == object:
        return constant(value)
    if value.strides and not any(value.strides) and value.size > 1:  # a splat: kept as a broadcast view
        return constant(torch.from_numpy(value.reshape(-1)[:1].copy()).reshape(()).expand(value.shape))
    return constant(torch.from_numpy(np.array(value)))


@converter("Identity", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "DeepCopy", "GuaranteeConst",
           ignores=("shape", "message"))  # fmt: skip
def identity(t: Emit, x: Operand) -> Operand:
    return x


@converter("CheckNumerics")
def check_numerics(t: Emit, x: Any, *, message: bytes) -> Any:
    """Kept as a check: TensorFlow refuses NaN and infinities here."""
    if isinstance(x, Constant):
        return x
    axes = tuple(range(len(x.shape)))
    t.check(t.reduce_all(t.isfinite(x), axes=axes), constant(message + b" : Tensor had Inf or NaN values"))
    return x


@converter("Print", ignores=("U", "message", "first_n", "summarize"))
def print_(t: Emit, x: Operand, *data: Operand) -> Operand:
    """Prints nothing."""
    return x


@converter("IdentityN")
def identity_n(t: Emit, *xs: Operand) -> list[Operand]:
    return list(xs)


@converter("NoOp")
def no_op(t: Emit) -> list[Operand]:
    return []


@converter("PlaceholderWithDefault", ignores=("dtype", "shape"))
def placeholder_with_default(t: Emit, x: Operand) -> Operand:
    """Not fed, so it is its default."""
    return x


@converter("Shape")
def shape(t: Emit, x: Operand, *, out_type: str = "int32") -> Any:
    return shape_of(t, x, out_type)


@converter("ShapeN")
def shape_n(t: Emit, *xs: Operand, out_type: str = "int32") -> list[Any]:
    return [shape_of(t, x, out_type) for x in xs]


@converter("Rank")
def rank(t: Emit, x: Any) -> Any:
    if x.shape is None:
        return t.rank(x)
    return constant(torch.tensor(len(x.shape), dtype=torch.int32))


@converter("Size")
def size(t: Emit, x: Any, *, out_type: str = "int32") -> Any:
    if isinstance(x, Constant):
        return constant(torch.tensor(int(np.prod(x.shape)), dtype=torch_dtype(out_type)))
    if x.shape is None:
        return t.numel(x, dtype=out_type)
    total = scalar(1)
    for dimension in t.sizes(x):
        total = mul(t, total, scalar(dimension))
    return Sizes(total, out_type)


# -- variables ----------------------------------------------------------------------------------------------------------


@converter("VarHandleOp", ignores=("dtype", "shape", "allowed_devices", "debug_name"))
def var_handle(t: Emit, *, variable: str) -> Resource:
    return Resource("variable", variable)


@converter("VariableV2", "Variable", ignores=("dtype", "shape"))
def reference_variable(t: Emit, *, variable: str) -> Any:
    return read(t, Resource("variable", variable))


@converter("ReadVariableOp")
def read_variable(t: Emit, resource: Resource, *, dtype: str) -> Any:
    return read(t, resource, dtype)


@converter("VariableShape")
def variable_shape(t: Emit, resource: Resource, *, out_type: str = "int32") -> Constant:
    return constant(torch.tensor(t.context.model.variables[resource.key].shape, dtype=torch_dtype(out_type)))


def read(t: Emit, resource: Any, dtype: str | None = None) -> Any:
    """The weight of a variable, read as `dtype`. A variable that is read twice is one weight."""
    if not isinstance(resource, Resource) or resource.kind != "variable":
        raise PortingError(f"{t.scope!r} reads a variable that is known only at run time")
    variable = t.context.model.variables[resource.key]
    if dtype not in (None, variable.dtype):
        raise PortingError(f"{t.scope!r} reads the variable '{variable.name}' as {dtype}, and it is {variable.dtype}")
    if variable.dtype not in TORCH_DTYPES:
        return constant(variable.numpy())
    name = t.context.weights.get(resource.key)
    if name is None:
        name = t.context.weights[resource.key] = t.names.tensor(weight_name(clean(variable.name)))
        t.store[name] = variable.tensor()
    return t.parameter(name, variable.dtype, variable.shape)


# -- checks -------------------------------------------------------------------------------------------------------------


@converter("Assert", ignores=("summarize",))
def check(t: Emit, condition: Any, *data: Any) -> list[Operand]:
    """Kept as a check with TensorFlow's message if it depends on the inputs; dropped if it always holds."""
    if isinstance(condition, Constant):
        if bool(condition.python()):
            return []
        raise PortingError(f"the assertion {t.scope!r} never holds: TensorFlow would refuse every input")
    t.check(condition, *data)
    return []
