"""TensorFlow's own definitions of its ops: arguments, attributes, and what these may be. `tools/make_op_definitions.py` writes the table."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Attribute:
    """What an attribute may be. `kind` is "int", "list(type)", ...: `many` of one `item`; `minimum` is of an int's value, or of a list's length."""

    kind: str
    many: bool
    item: str
    required: bool
    default: Any
    allowed: frozenset[Any] | None
    minimum: int | None


@dataclass(frozen=True, slots=True)
class Argument:
    """An operand or result: one tensor, `number` tensors, or one for each type of the list `types`; its dtype is fixed or an attribute's."""

    name: str
    dtype: str = ""
    attribute: str = ""
    number: str = ""
    types: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """An op: its arguments in order, and its attributes."""

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    attributes: Mapping[str, Attribute]


def definition(op: str) -> Definition | None:
    """The definition of `op`; None where TensorFlow and tensorflow_text have none."""
    return _parsed(op) if op in _lines() else None


@functools.cache
def _lines() -> dict[str, str]:
    text = resources.files("porting.saved_model").joinpath("op_definitions.jsonl").read_text(encoding="utf-8")
    return {line[2 : line.index('"', 2)]: line for line in text.splitlines()}


@functools.cache
def _parsed(op: str) -> Definition:
    _, inputs, outputs, attributes = json.loads(_lines()[op])
    return Definition(_arguments(inputs, attributes), _arguments(outputs, attributes), _attributes(attributes))


def _arguments(said: Mapping[str, str], attributes: Mapping[str, Any]) -> tuple[Argument, ...]:
    return tuple(_argument(name, kind, attributes) for name, kind in said.items())


def _argument(name: str, kind: str, attributes: Mapping[str, Any]) -> Argument:
    if kind.startswith("["):
        return Argument(name, types=kind[1:-1])
    number, _, kind = kind.rpartition("*")
    return Argument(name, "", kind, number) if kind in attributes else Argument(name, kind, "", number)


def _attributes(said: Mapping[str, Any]) -> dict[str, Attribute]:
    return {
        name: Attribute(
            attr["kind"], attr["kind"].startswith("list("), attr["kind"].removeprefix("list(").removesuffix(")"), "default" not in attr, attr.get("default"),
            frozenset(attr["allowed"]) if "allowed" in attr else None, attr.get("minimum"),
        )
        for name, attr in said.items()
    }  # fmt: skip
