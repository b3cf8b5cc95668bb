"""The registry of converters: importing `porting.converters` fills `CONVERTERS`.

An op that is in it only computes: it gives results and changes nothing. `porting.flat_graph.effects` builds on that.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Converter = Callable[..., Any]

DRAWS = "everything: it draws random numbers"
"""What the converter of an op refuses that draws."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A converter: the function, its schema, and the names of the op's output arguments in order."""

    function: Converter
    signature: inspect.Signature
    hints: Mapping[str, Any]
    outputs: tuple[str, ...]
    ignores: frozenset[str]
    refuses: str


CONVERTERS: dict[str, Entry] = {}


def converter(
    *ops: str, outputs: Sequence[str] = (), ignores: Iterable[str] = (), refuses: str = ""
) -> Callable[[Converter], Converter]:
    """Registers a function as the converter of `ops`.

    `outputs` names the output arguments of ops that have several ("values", "indices"); an argument that is a list of
    tensors is given back as a list. `ignores` names attributes that do not change the numbers. `refuses` says, for
    docs/ops.md, what the converter does not take.
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
