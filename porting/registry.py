"""The registry of converters; importing `porting.converters` fills `CONVERTERS`.

An op with a converter is pure: it has results and no side effects. `porting.flat_graph.effects` relies on that.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Converter = Callable[..., Any]

DRAWS = "everything: it draws random numbers"
"""The refusal of ops that draw random numbers."""


@dataclass(frozen=True)
class Entry:
    """A converter: the function, its schema, and the names of the op's outputs in order."""

    function: Converter
    signature: inspect.Signature
    hints: Mapping[str, Any]
    outputs: tuple[str, ...]
    ignores: frozenset[str]
    refuses: str

    @cached_property
    def operands(self) -> tuple[tuple[str, Any], ...]:
        """The names and annotations of the operands, without the emitter and those of `*operands`."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        return tuple((name, self.hints.get(name)) for name in self._of_kind(*kinds)[1:])

    @cached_property
    def is_variadic(self) -> bool:
        """Whether it takes any number of operands."""
        return bool(self._of_kind(inspect.Parameter.VAR_POSITIONAL))

    @cached_property
    def attributes(self) -> frozenset[str]:
        """The attributes that it takes."""
        return frozenset(self._of_kind(inspect.Parameter.KEYWORD_ONLY))

    @cached_property
    def takes_all_attributes(self) -> bool:
        """Whether it takes every attribute."""
        return bool(self._of_kind(inspect.Parameter.VAR_KEYWORD))

    def _of_kind(self, *kinds: Any) -> list[str]:
        return [name for name, parameter in self.signature.parameters.items() if parameter.kind in kinds]


CONVERTERS: dict[str, Entry] = {}


def converter(
    *ops: str, outputs: Sequence[str] = (), ignores: Iterable[str] = (), refuses: str = ""
) -> Callable[[Converter], Converter]:
    """Registers a function as the converter of `ops`.

    `outputs` names the outputs of ops that have several ("values", "indices"); an output that is a list of
    tensors is returned as a list. `ignores` names attributes that do not affect the numbers. `refuses` tells
    docs/ops.md what the converter does not support.
    """

    def add(function: Converter) -> Converter:
        hints = typing.get_type_hints(function)
        entry = Entry(function, inspect.signature(function), hints, tuple(outputs), frozenset(ignores), refuses)
        for name in ops:
            if name in CONVERTERS:
                raise ValueError(f"{name!r} has two converters")
            CONVERTERS[name] = entry
        return function

    return add
