"""Texts made for a regular expression match it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from porting.samples.regex_samples import samples_of

PATTERNS = [
    r"\d{4}-\d{2}-\d{2}", r"(\d+):(\d+)(:\d+)?", r"[A-Za-z_][\w.]*@[a-z]+\.(com|org)", r"^tt[0-9]{7}$", r"[^,]+,[^,]*", r"(?i)abc|de+",
    r".*\.jpe?g", r"\s+\S\D\W",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_they_match(pattern: str) -> None:
    found = samples_of(pattern.encode(), 8, np.random.default_rng(0))
    assert found
    assert all(re.fullmatch(pattern, text.decode()) for text in found)


@pytest.mark.parametrize("pattern", [rb"\p{Mn}", rb"(", rb"\xff", b"\xff", rb"(a)\1"])
def test_what_is_not_known_gives_none(pattern: bytes) -> None:
    """RE2 knows classes that Python does not; nothing is said of back references."""
    found = samples_of(pattern, 4, np.random.default_rng(0))
    assert found == [] or found == ["\xff".encode()]
