"""Candidate values for elements of one domain: inside, at the edges, and outside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from porting.samples.follower import Domain
from porting.samples.regex_samples import samples_of

MARGIN = 1e-6
COUNT = 48  # values per pool that are drawn from a range
WORDS = [b"a", b"the quick brown fox", b"Hello, World!", "naïve café Ünïcødé".encode(), "日本語 テスト".encode(), b"42", b"UPPER lower",
         b"x" * 70, b"  two  spaces  ", b"hello world", b"a_b-c"]  # fmt: skip
ODD = [
    b"",
    b" ",
    "Ωmega ΣΊΣΥΦΟΣ".encode(),
    b"1,000.5",
    b"\xff\xfe bad utf-8",
    b"tab\tnew\nline",
    "😀 emoji".encode(),
    b"never seen before",
]
DATES = [b"2021-03-14 15:09:26", b"1999-12-31 23:59:59", b"2000-02-29 00:00:00", b"2024-07-01 08:30:05"]
FLOATS = [0.0, 1.0, 0.5, -0.5, 0.25, -1.0, 2.0, 3.25, -2.75, 10.0]
ODD_FLOATS = [-0.0, 1e-3, 1e-7, 0.1, 0.7, 2.3, 0.29, 19.99, 4.35, 1234.56, 879999999.0, 880000064.0, 1700000000.0, 16777217.0, 3.0, -3.0,
              *(10.0**i for i in range(2, 10)), -1e4, float("nan"), float("inf"), float("-inf")]  # fmt: skip
INTEGERS = [0, 1, 2, 3, 5, 7]
ODD_INTEGERS = [-1, 42, 10, 100, 1000, 10**6, 879999999, 1700000000, 2**31 - 1]


def inside(domain: Domain, dtype: str, rng: np.random.Generator) -> list[Any]:
    """Typical values for the tower."""
    if dtype == "string":
        return _texts(domain, rng)
    if dtype == "bool":
        return [False, True]
    return _cast(_numbers(domain, dtype, rng), dtype) or [0]


def edges(domain: Domain, dtype: str, rng: np.random.Generator) -> list[Any]:
    """Values at the edges of a domain that TensorFlow is expected to answer."""
    if dtype == "bool":
        return [False, True]
    if dtype == "string":
        if domain.numbers:
            integers = any(name.startswith("int") for name in domain.numbers)
            plain = not (domain.pieces or domain.separators or domain.patterns)
            return (
                [_spelled(value, integers) for value in _beside(domain, "int64" if integers else "float32")]
                if plain
                else []
            )
        known = _texts(domain, rng)[:8]
        return ODD + known + [text for word in known[:2] for text in (word + b".0", b" " + word, word.swapcase())]
    return _cast(_beside(domain, dtype), dtype)


def outside(domain: Domain, dtype: str) -> list[Any]:
    """Values that TensorFlow may refuse: ids just out of range, texts that are not numbers."""
    if dtype == "string":
        return (
            [b"", b"no number", b"-1"]
            if domain.numbers
            else [b"", b"not this"]
            if domain.decoders or domain.encodings
            else []
        )
    if dtype == "bool" or not domain.ranges:
        return []
    low, high = _id_range(domain)
    beyond = [low - 1, high + 1]
    return _cast(beyond + ([high + 0.5, float("nan")] if dtype.startswith("float") else []), dtype)


def _numbers(domain: Domain, dtype: str, rng: np.random.Generator) -> list[float]:
    keys = [number for number in map(_number, domain.keys) if number is not None]
    if domain.counts:
        return [1.0, 2.0, 3.0, 5.0]
    if domain.ranges:
        low, high = _id_range(domain)
        return sorted({low, min(low + 1, high), (low + high) // 2, high, *(float(k) for k in keys if low <= k <= high),
                       *np.floor(rng.uniform(low, high + 1, COUNT)).tolist()})  # fmt: skip
    if keys:
        return keys
    if domain.masks or (domain.truths and not dtype.startswith("float") and not domain.edges and not domain.spreads):
        return [1.0, 0.0, 1.0]
    usual = [
        (low, high) for low, high in domain.spreads if MARGIN < high - low < 1 / MARGIN
    ]  # others are epsilons and counters
    if usual:
        centred = [(low, high) for low, high in usual if low not in (0.0, -high)]  # a mean was subtracted
        return rng.uniform(*max(centred or usual, key=lambda ends: ends[1] - ends[0]), COUNT).tolist()
    if len(set(domain.edges)) > 1:
        low, high = min(domain.edges), max(domain.edges)
        beyond = (high - low) / 4
        return [*rng.uniform(low - beyond if low < 0 else max(0.0, low - beyond), high + beyond, COUNT).tolist()]
    if dtype.startswith("uint8"):
        return rng.integers(0, 256, COUNT).astype(float).tolist()
    plain = list(map(float, INTEGERS)) if not dtype.startswith(("float", "bfloat", "half")) else FLOATS
    return plain + [edge + step for edge in domain.edges for step in (-1.0, 1.0)]


def signal(rng: np.random.Generator, low: float, high: float) -> list[float]:
    """Values for pixels or sound about which nothing else is known."""
    return rng.uniform(low, high, 256).tolist()


def _beside(domain: Domain, dtype: str) -> list[float]:
    """Every constant with its neighbours, and notoriously hard numbers; for ids only those in their table."""
    floating = dtype.startswith(("float", "bfloat", "half"))
    if domain.counts:
        return [0.0, 1.0]
    if domain.ranges:
        low, high = _id_range(domain)
        return [low, high, *(edge for edge in domain.edges if low <= edge <= high)]
    exact = np.float64 if dtype == "float64" else np.float32
    found: list[float] = []
    for edge in domain.edges:
        at = exact(edge)
        found += [float(at), *(_neighbours(at) if floating else ()), edge - 1, edge + 1]
    keys = [number for number in map(_number, domain.keys) if number is not None]
    found += [max(keys) + 1, min(keys) - 1] if keys else []
    for low, high in domain.spreads:
        found += [low, high]
    return found + (ODD_FLOATS if floating else list(map(float, ODD_INTEGERS)))


def _neighbours(at: Any) -> tuple[float, float]:
    """The adjacent floats. For 0 these are the smallest normal ones: some TensorFlow threads flush denormals to
    zero."""
    kind = type(at)
    if at == 0:
        return -float(np.finfo(kind).tiny), float(np.finfo(kind).tiny)
    return float(np.nextafter(at, kind(-np.inf))), float(np.nextafter(at, kind(np.inf)))


def _id_range(domain: Domain) -> tuple[float, float]:
    """The intersection of all ranges that agree with the first one (a wrapped negative id has another)."""
    ranges = sorted(
        {(float(np.ceil(low)), float(np.floor(high))) for low, high in domain.ranges}, key=lambda r: (abs(r[0]), r[1])
    )
    low, high = ranges[0]
    for other_low, other_high in ranges[1:]:
        if max(low, other_low) <= min(high, other_high):
            low, high = max(low, other_low), min(high, other_high)
    return low, high


def _texts(domain: Domain, rng: np.random.Generator) -> list[bytes]:
    if domain.numbers and domain.pieces:
        return DATES
    matching = [text for pattern in domain.patterns for text in samples_of(pattern, 6, rng)]
    if domain.numbers:
        integers = any(name.startswith("int") for name in domain.numbers)
        spelled = [_spelled(value, integers) for value in _numbers(domain, "int64" if integers else "float32", rng)]
        separators = [separator for separator in domain.separators if separator.strip()]
        if separators:
            return _joined_by(separators, integers, rng)
        return spelled + [key for key in domain.keys if isinstance(key, bytes) and _number(key) is not None]
    words = [key if isinstance(key, bytes) else _spelled(key, True) for key in domain.keys if key != b""]
    if b" " in domain.separators or not words:
        words = words + [b" ".join(words[i : i + 4]) for i in range(0, min(len(words), COUNT), 4)]
    if words:
        return [*words, b"|".join(words[:3])] if b"|" in domain.separators else words
    others = [separator.join([b"one", b"two", b"three"]) for separator in domain.separators if separator.strip()]
    return others + matching + WORDS


def _joined_by(separators: Sequence[bytes], integers: bool, rng: np.random.Generator) -> list[bytes]:
    """Numbers between separators; dates if the separators are those of dates and times."""
    if {b"-", b":"} & set(separators) and b" " in separators:
        return DATES
    if b"-" in separators:
        return [date[:10] for date in DATES]
    if b":" in separators:
        return [date[11:] for date in DATES]
    values = rng.integers(1, 12, (8, 3)) if integers else rng.uniform(0, 10, (8, 3)).round(2)
    return [separators[0].join(str(value).encode() for value in row) for row in values.tolist()]


def _number(key: Any) -> float | None:
    if not isinstance(key, bytes):
        return float(key)
    return float(key) if re.fullmatch(rb"[+-]?\d+(\.\d+)?", key) else None


def _spelled(value: float, integer: bool) -> bytes:
    if np.isfinite(value) and (integer or value == int(value)):
        return str(int(value)).encode()
    return f"{value:.6g}".encode()


def _cast(values: Sequence[float], dtype: str) -> list[Any]:
    """The values in the dtype, without those that it cannot represent."""
    if dtype.startswith(("float", "bfloat", "half", "complex")):
        return [np.float64(value) for value in values]
    try:
        limits = np.iinfo(dtype)
    except ValueError:
        return []
    whole = [value for value in values if np.isfinite(value) and limits.min <= value <= limits.max]
    return list(dict.fromkeys(int(np.floor(value)) for value in whole))
