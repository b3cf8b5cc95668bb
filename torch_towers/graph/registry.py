"""The closed tables of what a checkpoint may call: `OPS` (functions) and `MODULES` (classes).

Only names in these tables run; nothing is imported because a file names it.
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
"""A string tensor: a numpy object array of `bytes`, like TensorFlow's strings."""

Number = Tensor | int | float | bool
"""An operand that may be a literal: rank-0 constants are literals in the graph."""

Stage = Literal["tensor", "early", "host"]
"""Where an op runs. "tensor": on the encoder's device, compiled with it. "early": before the encoder if possible (it
decides an id, or the size of its result depends on values). "host": always on the CPU (strings or tables)."""

Spec = tuple[str | None, tuple[int | str | None, ...] | None]
"""The inferred dtype and shape of a value; None is unknown."""

Infer = Callable[..., Sequence[Spec]]


@dataclass(frozen=True)
class Op:
    """An entry of a table: the callable, its signature with evaluated annotations, and where it runs.

    The signature is read lazily: a checkpoint uses only a few of hundreds of entries.
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
        function = self.function.__init__ if inspect.isclass(self.function) else self.function
        return typing.get_type_hints(function, include_extras=True)

    @cached_property
    def operands(self) -> tuple[tuple[str, Any], ...]:
        """The names and annotations of its operands; the last one's may be that of many, see `is_variadic`."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        found = [name for name, parameter in self.signature.parameters.items() if parameter.kind in kinds]
        hints = ((name, self.hints.get(name)) for name in found)
        return tuple(
            (name, int if hint == int | None else hint) for name, hint in hints
        )  # an open bound is an integer too

    @cached_property
    def is_variadic(self) -> bool:
        """Whether it takes any number of operands."""
        return any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in self.signature.parameters.values())

    @cached_property
    def takes_device(self) -> bool:
        """True for ops that create tensors from no tensor: they get the encoder's device."""
        return "device" in self.signature.parameters


OPS: dict[str, Op] = {}
MODULES: dict[str, Op] = {}

F = TypeVar("F", bound=Callable[..., Any])


def op(*, stage: Stage = "tensor", infer: Infer | None = None, name: str | None = None) -> Callable[[F], F]:
    """Registers a function as a runtime op: positional parameters are operands, keyword-only ones are constant
    attributes.

    `infer(*specs, **attrs)` returns the results' dtypes and shapes for ops that cannot run on meta tensors.
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
    """Inference for ops whose result has the first operand's shape, and its dtype if `dtype` is None."""

    def infer(first: Spec, *rest: Spec, **attrs: Any) -> list[Spec]:
        return [(dtype or first[0], first[1])]

    return infer


def returns(*specs: Spec) -> Infer:
    """Inference for ops whose results have fixed dtypes and shapes, as far as they are known."""

    def infer(*operands: Spec, **attrs: Any) -> Sequence[Spec]:
        return specs

    return infer
