"""Unicode normalization and case folding as in TensorFlow Text's ICU 77 (Unicode 16), independent of Python's Unicode
version.

Assigned characters never change their normalization, so Python's tables are right for text without characters
newer than Unicode 14; `unicode_tables` has the newer ones. Bytes that are not UTF-8 stay as they are, as in ICU.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from torch_towers.formats.unicode_tables import (
    CANONICAL,
    COMBINING,
    COMPATIBLE,
    FOLDS,
    IGNORED,
    LATER,
    LATER_FOLDS,
    SCRIPTS,
)

Array = np.ndarray[Any, Any]


def _class(characters: Iterable[str], ranges: Iterable[tuple[int, int]]) -> re.Pattern[str]:
    parts = [re.escape(character) for character in characters]
    parts += [f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges]
    return re.compile(f"[{''.join(parts)}]")


@cache
def _new() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of characters that Python's tables may get wrong: the BMP, and beyond, where `re` tests ranges one by
    one."""
    characters = {*COMBINING, *CANONICAL, *COMPATIBLE, *(pair[0] for pair in CANONICAL.values())}
    low = [(first, min(last, _BMP)) for first, last in LATER if first <= _BMP]
    high = [(max(first, _BMP + 1), last) for first, last in LATER if last > _BMP]
    return (
        _class([character for character in characters if ord(character) <= _BMP], low),
        _class([character for character in characters if ord(character) > _BMP], high),
    )


_BMP = 0xFFFF
_ABOVE = re.compile("[\U00010000-\U0010ffff]")


def _is_known(text: str) -> bool:
    """Whether Python's tables are right for the text."""
    low, high = _new()
    return low.search(text) is None and (_ABOVE.search(text) is None or high.search(text) is None)


@cache
def _inert() -> re.Pattern[str]:
    return _class([], LATER)


_COMPOSITIONS = {pair: character for character, pair in CANONICAL.items()}


def decode(text: bytes) -> str:
    """UTF-8 to a string in which each invalid byte is a lone surrogate; `encode` is the inverse."""
    return text.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The inverse of `decode`."""
    return text.encode("utf-8", "surrogateescape")


def normalizer(form: str) -> Callable[[bytes], bytes]:
    """The function that normalizes UTF-8 to NFC, NFD, NFKC or NFKD."""

    def normalize(text: bytes) -> bytes:
        return text if text.isascii() else encode(normalize_text(decode(text), form))

    return normalize


def normalize_text(text: str, form: str) -> str:
    """`text` in the normalization form NFC, NFD, NFKC or NFKD."""
    if _is_known(text):
        return unicodedata.normalize(form, text)  # type: ignore[reportArgumentType]
    decomposed = _reorder([part for character in text for part in _decompose(character, "K" in form)])
    return _compose(decomposed) if form.endswith("C") else "".join(decomposed)


def case_fold(text: bytes) -> bytes:
    """Unicode's NFKC_Casefold: compatibility composed, case folded, ignorable characters removed."""
    if text.isascii():
        return text.lower()
    return encode(normalize_text(decode(text).translate(_FOLDING), "NFC"))


class _Folding(dict[int, str]):
    """NFKC_Casefold of one character, memoized."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        folded = self[code] = FOLDS.get(character) or _fold(character)
        return folded


def _fold(character: str) -> str:
    if _ALONE.match(character) or "\ud800" <= character <= "\udfff":
        return character
    decomposed = normalize_text(character, "NFD")
    return normalize_text(normalize_text(decomposed.casefold(), "NFKC").casefold(), "NFKC")


_ALONE = _class([], [*LATER, *LATER_FOLDS])
_FOLDING = _Folding({code: "" for first, last in IGNORED for code in range(first, last + 1)})


# -- the algorithm of Unicode Standard Annex 15, for text with characters that Python's tables may get wrong
# ---------------


def _decompose(character: str, compatible: bool) -> str:
    if _inert().match(character):
        return character
    parts = CANONICAL.get(character) or (COMPATIBLE.get(character) if compatible else None)
    if parts is None:
        return unicodedata.normalize("NFKD" if compatible else "NFD", character)
    return "".join(_decompose(part, compatible) for part in parts)


def _combining(character: str) -> int:
    if _inert().match(character):
        return 0
    return COMBINING.get(character) or unicodedata.combining(character)


def _reorder(characters: list[str]) -> list[str]:
    """The canonical order: each run of combining characters sorted by class."""
    ordered: list[str] = []
    run: list[str] = []
    for character in characters:
        if _combining(character):
            run.append(character)
            continue
        ordered += sorted(run, key=_combining)
        ordered.append(character)
        run = []
    return ordered + sorted(run, key=_combining)


def _compose(characters: list[str]) -> str:
    result: list[str] = []
    starter, last = -1, 0  # position of the last starter, and the combining class of the last character kept after it
    for character in characters:
        combining = _combining(character)
        if starter >= 0 and (last < combining or last == 0 == len(result) - 1 - starter):
            composed = _pair(result[starter], character)
            if composed:
                result[starter] = composed
                continue
        if combining == 0:
            starter = len(result)
        last = combining
        result.append(character)
    return "".join(result)


def _pair(first: str, second: str) -> str | None:
    known = _COMPOSITIONS.get(first + second)
    if known:
        return known
    if not _is_known(first + second):
        return None
    composed = unicodedata.normalize("NFC", first + second)
    return composed if len(composed) == 1 else None


# -- scripts --------------------------------------------------------------------------------------------------------------

_STARTS, _KINDS = np.array([start for start, _ in SCRIPTS]), np.array([kind for _, kind in SCRIPTS])


def scripts(codes: Array) -> Array:
    """A number for the script of each code point, equal iff the scripts are equal to tf.text's ICU; -1 for an invalid one.

    TensorFlow's own ICU is older: `ops/unicode.py` has its table.
    """
    return of_runs(codes, _STARTS, _KINDS)


def of_runs(codes: Array, starts: Array, kinds: Array) -> Array:
    """The kind of the run that each code point is in, by the first code points of the runs; -1 for an invalid one."""
    found = kinds[np.searchsorted(starts, codes, "right") - 1]
    return np.where((codes >= 0) & (codes <= 0x10FFFF), found, kinds.dtype.type(-1))


WHITE_SPACE = frozenset(
    [*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
)
"""Unicode's property White_Space."""
