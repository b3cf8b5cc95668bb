"""The closed tables of what a checkpoint may call: `OPS` (functions) and `MODULES` (classes), filled by the files beside this one.

A name that is not in a table does not run; nothing is ever imported because a file names it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

Strings = np.ndarray[Any, np.dtype[np.object_]]
"""A string tensor: a numpy object array of `bytes`, as TensorFlow's strings are bytes."""

Number = Tensor | int | float | bool
"""An operand that may be a literal: a rank-0 constant is written into the graph as itself."""

Stage = Literal["tensor", "early", "host"]
"""Where an op runs. "tensor": on the encoder's device, compiled with it. "early": before the encoder where it can (it decides
which id a value is, or its result's size depends on values). "host": on the CPU always (it touches strings or tables)."""

Spec = tuple[str | None, tuple[int | str | None, ...] | None]
"""What is known of a value before it is computed: dtype and shape; None is unknown."""

Infer = Callable[..., Sequence[Spec]]


@dataclass(frozen=True)
class Op:
    """One entry of a table: the callable, its signature with evaluated annotations, and where it runs.

    The signature is read when it is asked for: of hundreds of entries a checkpoint names a few.
    """

    name: str
    function: Callable[..., Any]
    stage: Stage
    infer: Infer | None

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def hints(self) -> Mapping[str, Any]:
        return typing.get_type_hints(self.function.__init__ if inspect.isclass(self.function) else self.function)

    @cached_property
    def takes_device(self) -> bool:
        """True for ops that make tensors out of nothing: they are told the encoder's device."""
        return "device" in self.signature.parameters


OPS: dict[str, Op] = {}
MODULES: dict[str, Op] = {}

F = TypeVar("F", bound=Callable[..., Any])


def op(*, stage: Stage = "tensor", infer: Infer | None = None, name: str | None = None) -> Callable[[F], F]:
    """Registers a function as a runtime op: positional parameters are operands, keyword-only ones are constant attributes.

    `infer(*specs, **attrs)` gives the results' dtypes and shapes for ops that cannot run on meta tensors.
    """
    return _register(OPS, stage, infer, name)


def module(*, stage: Stage = "tensor", infer: Infer | None = None, name: str | None = None) -> Callable[[F], F]:
    """Registers a class as a module type: `cls(**args)`, then called on its operands."""
    return _register(MODULES, stage, infer, name)


def _register(table: dict[str, Op], stage: Stage, infer: Infer | None, name: str | None) -> Callable[[F], F]:
    def add(function: F) -> F:
        key = name or str(function.__name__)
        if key in table:
            raise ValueError(f"{key!r} is registered twice")
        table[key] = Op(key, function, stage, infer)
        return function

    return add


def elementwise(dtype: str | None = None) -> Infer:
    """Inference for ops whose result has the first operand's shape; `dtype` None keeps the first operand's dtype."""

    def infer(first: Spec, *rest: Spec, **attrs: Any) -> list[Spec]:
        return [(dtype or first[0], first[1])]

    return infer


def returns(*specs: Spec) -> Infer:
    """Inference for ops whose results always have the same dtypes and shapes, as far as is known."""

    def infer(*operands: Spec, **attrs: Any) -> Sequence[Spec]:
        return specs

    return infer
