"""Expression: a piece of Python text that knows how tightly it binds, so that parentheses stand only where they must."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

COMPARED, OR, XOR, AND, SUM, PRODUCT, SIGN, POWER, ATOM = range(9)
_LEVELS = {"<": COMPARED, "|": OR, "^": XOR, "&": AND, "+": SUM, "*": PRODUCT, "~": SIGN, "**": POWER, ".": ATOM}


@dataclass(frozen=True, slots=True)
class Expression:
    """`text` of Python; `level` is that of its loosest operator."""

    text: str
    level: int = ATOM

    def __format__(self, spec: str) -> str:
        """In a template: `{0:+}` where a sum may stand, `{0:*}` a factor, `{0:.}` what has a method; `{0}` anywhere."""
        level = _LEVELS[spec.rstrip("r")] + spec.endswith("r") if spec else COMPARED
        return self.text if self.level >= level else f"({self.text})"

    def __str__(self) -> str:
        return self.text


def literal(value: Any) -> Expression:
    """A constant of a graph: numbers, text, bytes, and tuples of these. Only what it says is in its text, whatever it says."""
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
