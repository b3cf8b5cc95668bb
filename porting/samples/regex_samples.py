"""Generates texts that match a regular expression, for inputs that a graph parses with it."""

from __future__ import annotations

import re
from re import _constants as codes  # type: ignore[reportPrivateUsage]
from re import _parser as parser  # type: ignore[reportPrivateUsage]
from typing import Any

import numpy as np

MORE = 3  # repetitions beyond the minimum


def samples_of(pattern: bytes, count: int, rng: np.random.Generator) -> list[bytes]:
    """Up to `count` texts that match `pattern` (the common subset of RE2's and Python's syntax; none for other
    patterns)."""
    try:
        text = pattern.decode()
        compiled, parsed = re.compile(text), parser.parse(text)
        made = ["".join(_part(op, value, rng) for op, value in parsed) for _ in range(count)]
    except (re.error, UnicodeDecodeError, KeyError, NotImplementedError, OverflowError):
        return []
    return [text.encode() for text in dict.fromkeys(made) if compiled.fullmatch(text)]


def _part(op: Any, value: Any, rng: np.random.Generator) -> str:
    if op is codes.LITERAL:
        return chr(value)
    if op is codes.ANY:
        return "x"
    if op is codes.NOT_LITERAL:
        return "y" if chr(value) == "x" else "x"
    if op is codes.IN:
        return _member(value, rng)
    if op in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inner = value
        times = int(rng.integers(least, min(most, least + MORE) + 1))
        return "".join(_part(item[0], item[1], rng) for _ in range(times) for item in inner)
    if op is codes.SUBPATTERN:
        return "".join(_part(item[0], item[1], rng) for item in value[-1])
    if op is codes.BRANCH:
        return "".join(_part(item[0], item[1], rng) for item in value[1][int(rng.integers(len(value[1])))])
    if op is codes.AT:
        return ""
    raise NotImplementedError(op)


def _member(items: list[Any], rng: np.random.Generator) -> str:
    if items[0][0] is codes.NEGATE:
        return next(c for c in "x 1-" if not any(_holds(item, c) for item in items[1:]))
    op, value = items[int(rng.integers(len(items)))]
    if op is codes.RANGE:
        return chr(int(rng.integers(value[0], min(value[1], value[0] + 25) + 1)))
    if op is codes.LITERAL:
        return chr(value)
    return {codes.CATEGORY_DIGIT: str(rng.integers(10)), codes.CATEGORY_WORD: "w", codes.CATEGORY_SPACE: " ",
            codes.CATEGORY_NOT_DIGIT: "x", codes.CATEGORY_NOT_SPACE: "x", codes.CATEGORY_NOT_WORD: "-"}[value]  # fmt: skip


def _holds(item: Any, character: str) -> bool:
    op, value = item
    if op is codes.LITERAL:
        return chr(value) == character
    if op is codes.RANGE:
        return value[0] <= ord(character) <= value[1]
    if op is not codes.CATEGORY:
        return True
    kinds = {codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_WORD: r"\w", codes.CATEGORY_SPACE: r"\s",
             codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_NOT_SPACE: r"\S", codes.CATEGORY_NOT_WORD: r"\W"}  # fmt: skip
    return re.fullmatch(kinds[value], character) is not None
