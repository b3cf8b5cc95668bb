"""Patterns whose matches are single characters of a class, or runs of them: `\\s+`, `[!-/]|\\p{P}`, `([.,!?])`.

Such a pattern's matches in UTF-8 follow from its matches in each single code point, for which RE2 itself is queried.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from torch_towers.ops.re2 import compiled

_ATOM = (
    r"(?:\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\\[])*\]"  # a class
    r"|\\(?:[dDsSwWntrfav]|[pP](?:[A-Z]|\{\^?\w+\})|x(?:[0-9A-Fa-f]{2}|\{[0-9A-Fa-f]+\})|[^\w\s])"
    r"|[^\\^$|?*+()\[\]{}])"
)
_PLAIN = re.compile(rf"{_ATOM}\+?(?:\|{_ATOM}\+?)*", re.ASCII | re.DOTALL)
_ITEM = re.compile(rf"({_ATOM})(\+?)(?:\||$)", re.ASCII | re.DOTALL)
_ALONE, _MAX_RUNS = 1, 4
_PAGE = 256


def without_group(pattern: bytes) -> bytes | None:
    """The pattern inside a single enclosing group; None if there is none."""
    inner = pattern[1:-1]
    return inner if pattern[:1] == b"(" and pattern[-1:] == b")" and _is_plain(inner) else None


def _is_plain(pattern: bytes) -> bool:
    try:
        return _PLAIN.fullmatch(pattern.decode()) is not None
    except UnicodeDecodeError:
        return False


@lru_cache(maxsize=64)
def classes_of(pattern: bytes) -> bytes | None:
    """The kind of each code point under the pattern, as `native/core/classes.c` reads it; None for other patterns.

    RE2 must accept the pattern.
    """
    inner = without_group(pattern) or pattern
    if not _is_plain(inner):
        return None
    kinds = np.zeros(0x110000, np.uint8)
    runs = 0
    for atoms, run in _alternatives(inner.decode()):
        found = _found(atoms)
        kind = 2 + runs if run else _ALONE
        if run:
            if runs == _MAX_RUNS:
                return None
            kinds[found] |= 16 << runs
            runs += 1
        kinds[found] |= np.where(kinds[found] & 15, 0, kind).astype(np.uint8)  # the first alternative wins
    pages: dict[bytes, int] = {}
    places = [pages.setdefault(page.tobytes(), len(pages)) for page in kinds.reshape(-1, _PAGE)]
    return np.array(places, np.uint16).tobytes() + b"".join(pages)


def _alternatives(pattern: str) -> list[tuple[str, bool]]:
    """The alternatives in order, and whether each matches runs; adjacent single-character ones are merged."""
    alternatives: list[tuple[str, bool]] = []
    for atom, plus in _ITEM.findall(pattern):
        if alternatives and not plus and not alternatives[-1][1]:
            alternatives[-1] = (f"{alternatives[-1][0]}|{atom}", False)
        else:
            alternatives.append((atom, bool(plus)))
    return alternatives


def _found(atoms: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which code points match: queried as runs in a text of all code points, since few long matches are faster than
    many short ones."""
    codes, text, starts = _every_character()
    changes = np.zeros(len(codes) + 1, np.int8)
    spans = [match.span() for match in compiled(f"(?:{atoms})+".encode()).finditer(text)]
    if spans:
        first, last = np.array(spans, np.int64).T
        changes[np.searchsorted(starts, first)] += 1
        changes[np.searchsorted(starts, last)] -= 1
    found = np.zeros(0x110000, np.bool_)
    found[codes] = changes.cumsum(dtype=np.int8)[:-1] > 0
    return found


def _every_character() -> tuple[np.ndarray[Any, Any], bytes, np.ndarray[Any, Any]]:
    """All code points valid in UTF-8, their text, and the offset of each in it."""
    codes = np.concatenate([np.arange(0xD800), np.arange(0xE000, 0x110000)]).astype("<u4")
    text = codes.tobytes().decode("utf-32-le").encode()
    sizes = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000).astype(np.int64)
    return codes, text, sizes.cumsum() - sizes
