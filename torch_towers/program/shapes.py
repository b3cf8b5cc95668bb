"""Shape inference with torch's functions on the meta device, without importing torch's compiler.

torch implements most meta functions by Python references, and the first one imports `torch._dynamo`: about two seconds
per port. If a result's shape does not depend on values, a run on dummy CPU tensors gives the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LARGE = 1 << 22  # elements above which the meta device is used, which computes nothing

_ELEMENTWISE = frozenset((
    "abs", "absolute", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and",
    "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "and", "or", "xor",
    "invert", "lshift", "rshift", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "complex", "cos", "cosh",
    "digamma", "div", "elu", "eq", "erf", "erfc", "erfinv", "exp", "expm1", "floor", "floor_divide", "floordiv", "fmod",
    "ge", "gelu", "gt", "hardsigmoid", "hardtanh", "igamma", "igammac", "isfinite", "isinf", "isnan", "le",
    "leaky_relu", "lerp", "lgamma", "log", "log1p", "logical_and", "logical_not", "logical_or", "logical_xor", "logit",
    "lt", "masked_fill", "maximum", "minimum", "mish", "mod", "mul", "nan_to_num", "ne", "neg", "nextafter", "pow", "radd", "rdiv",
    "reciprocal", "relu", "relu6", "remainder", "rfloordiv", "rmod", "rmul", "round", "rpow", "rsqrt", "rsub",
    "rtruediv", "selu", "sigmoid", "sign", "silu", "sin", "sinh", "softplus", "softsign", "sqrt", "square", "sub",
    "tan", "tanh", "true_divide", "truediv", "trunc", "where", "xlogy",
))  # fmt: skip
"""Functions whose result has the broadcast shape of the operands, including methods and operators of the same names."""

_OF_SHAPES = frozenset((
    "all", "amax", "amin", "any", "batch_norm", "bmm", "cat", "cummax", "cumprod", "cumsum", "dot", "embedding_bag",
    "layer_norm", "linear", "log_softmax", "logcumsumexp", "logsumexp", "mean", "norm", "one_hot", "outer", "prod",
    "roll", "scaled_dot_product_attention", "softmax", "stack", "std", "sum", "tril", "triu", "var", "var_mean",
    "vector_norm", "matmul", "mm", "rmatmul",
))  # fmt: skip
"""Other functions whose result's shape depends only on the operands' shapes."""


class WithoutCompiler(TorchFunctionMode):
    """While active, functions of meta tensors return meta tensors without importing `torch._dynamo`, except for large
    ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.strip("_")
        if func is torch.embedding and args[0].is_meta:  # the table may be huge
            return torch.empty((*args[1].shape, args[0].shape[1]), dtype=args[0].dtype, device="meta")
        known = name in _ELEMENTWISE or name in _OF_SHAPES
        operands: list[Tensor] = []
        if known:
            _mapped(operands.append, (args, kwargs))
        if not any(item.is_meta for item in operands) or "out" in kwargs:
            return func(*args, **kwargs)
        if name in _ELEMENTWISE:
            shape = np.broadcast_shapes(*[tuple(item.shape) for item in operands])
            found = _on_cpu(func, args, kwargs, one=True)
            if func.__name__.endswith("_") and not func.__name__.startswith("_"):
                return args[0]  # in-place
            return torch.empty(shape, dtype=found.dtype, device="meta")
        if max(item.numel() for item in operands) > _LARGE:
            return _joined(func, name, *args, **kwargs) if name in ("cat", "stack") else func(*args, **kwargs)
        return _mapped(lambda item: item.to("meta"), _on_cpu(func, args, kwargs))


def _joined(func: Any, name: str, tensors: Any, dim: int = 0) -> Tensor:
    """`cat` or `stack` of large tensors: dummies of the same size along `dim`, and of size 1 along other axes."""
    ndim = tensors[0].ndim
    axis = dim % ndim if name == "cat" and ndim else None
    others = [[size for i, size in enumerate(item.shape) if i != axis] for item in tensors]
    if any(sizes != others[0] for sizes in others):
        return func(tensors, dim)  # raises the error
    thin = [
        torch.empty([size if i == axis else 1 for i, size in enumerate(item.shape)], dtype=item.dtype)
        for item in tensors
    ]
    found = func(thin, dim)
    joined = dim % found.ndim
    rest = iter(others[0])
    shape = [size if i == joined else next(rest) for i, size in enumerate(found.shape)]
    return torch.empty(shape, dtype=found.dtype, device="meta")


def _on_cpu(func: Any, args: Any, kwargs: Any, *, one: bool = False) -> Any:
    """Runs the function on CPU tensors that are expanded from one element; `one`: with all sizes 1."""

    def stand_in(item: Tensor) -> Tensor:
        if one:
            return torch.ones((1,) * item.ndim, dtype=item.dtype)  # a valid divisor
        return torch.zeros((), dtype=item.dtype).expand(item.shape)  # a valid index

    args, kwargs = _mapped(stand_in, (args, kwargs))
    return func(*args, **kwargs)


def _mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """`value` with `change` applied to every tensor in its tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        parts = [_mapped(change, item) for item in value]  # type: ignore[reportUnknownVariableType]
        return parts if isinstance(value, list) else tuple(parts)
    return {key: _mapped(change, item) for key, item in value.items()} if isinstance(value, dict) else value  # type: ignore[reportUnknownVariableType]
