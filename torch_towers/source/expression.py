"""Python source expressions with operator precedence, so that parentheses appear only where needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

COMPARED, OR, XOR, AND, SUM, PRODUCT, SIGN, POWER, ATOM = range(9)
_LEVELS = {"<": COMPARED, "|": OR, "^": XOR, "&": AND, "+": SUM, "*": PRODUCT, "~": SIGN, "**": POWER, ".": ATOM}


@dataclass(frozen=True, slots=True)
class Expression:
    """Source `text`; `level` is the precedence of its outermost operator."""

    text: str
    level: int = ATOM

    def __format__(self, spec: str) -> str:
        """In a template, `{0:+}` is an operand of a sum, `{0:*}` a factor, `{0:.}` an object with a method; `{0}` fits
        anywhere."""
        level = _LEVELS[spec.rstrip("r")] + spec.endswith("r") if spec else COMPARED
        return self.text if self.level >= level else f"({self.text})"

    def __str__(self) -> str:
        return self.text


def literal(value: Any) -> Expression:
    """A constant of a graph as a literal: numbers, text, bytes, and tuples of these. Untrusted text is always
    escaped."""
    if isinstance(value, bool) or value is None:
        return Expression(repr(value))
    if isinstance(value, float):
        if math.isnan(value) or math.isinf(value):
            return Expression(f'float("{value}")')
        return Expression(repr(value), SIGN if value < 0 or str(value).startswith("-") else ATOM)
    if isinstance(value, int):
        return Expression(repr(value), SIGN if value < 0 else ATOM)
    if isinstance(value, str):
        return Expression(ascii(value))
    if isinstance(value, bytes):
        return Expression(repr(value))
    if isinstance(value, (tuple, list)):
        items = [str(literal(item)) for item in value]  # type: ignore[reportUnknownVariableType]
        return Expression(f"({', '.join(items)}{',' if len(items) == 1 else ''})")
    raise TypeError(f"a graph holds no constants of type {type(value).__name__}")
