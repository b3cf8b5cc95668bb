"""Fast replacements equal RE2's, match by match, on any bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_towers.ops import regex

PATTERNS = [
    (rb"[^a-z0-9+#]+", b" "), (rb"[^a-z0-9+#]+", b""), (rb"[^a-z]", b"-"), (rb"[^a-z ]+", b" "), (rb"[^\d]+", b"<>"),
    (rb"[a-c ]+", b" "), (rb"[a-c]+", b" "), (rb"[!-~]", b"x"), (rb"[^^]", b"."), (rb"[^]a]+", b"]"), (b"[^\0-\x7f]+", b"-"),
    (rb"\b([a-z]{3,}?)(?:ings?|ers?|ed|es|e|s|y)\b", rb"\1"), (rb"(a+)(b|ab)", rb"\2\1"), (rb"\bab?\b", b""), (rb"a|b", rb"[\0]"),
    (rb"\b", b"-"), (rb"a*", b"-"), (rb"(a|\b)", rb"<\1>"), (rb"\S+", b"w"), (rb"a[b.]c?", b"\\\\"), (rb"\w{2,3}", rb"\0 "),
    (rb"a b", b"c"), (rb"^a", b"b"), (rb"a$", b"b"), (rb"a.", b"b"), (rb"\s", b"_"), (rb"[a ]b", rb"\0!"), (rb"a[^b]", rb"<\0>"),
]  # fmt: skip
TEXTS = st.lists(
    st.sampled_from([b"a", b"b", b"c", b"ab", b" ", b"  ", b"ing", b"abcers", b"\n", b"^", b"]", b"-", b".", b"9", "\u00e9".encode(),
                     "\u4f60".encode(), b"\xff", b"\xc3", b"\0"]),
    max_size=8,
).map(b"".join)  # fmt: skip


@pytest.mark.parametrize("replace_global", [True, False])
@pytest.mark.parametrize("pattern, rewrite", PATTERNS)
@settings(max_examples=120, deadline=None)
@given(text=TEXTS)
def test_equals_re2(pattern: bytes, rewrite: bytes, replace_global: bool, text: bytes) -> None:
    parts, _ = regex._rewrite_parts(rewrite)
    slow = regex._slow_replacer(regex.compiled(pattern), parts, replace_global)
    fast = regex.replacer(pattern, rewrite, replace_global)
    assert fast(text) == fast(text) == slow(text)


def test_which_patterns_go_word_by_word() -> None:
    def wordwise(pattern: bytes) -> bool:
        change: Any = object()
        return regex._word_by_word(pattern, change) is not change

    assert wordwise(rb"\b([a-z]{3,}?)(?:ings?|ers?)\b")
    for pattern in (
        rb"a b",
        rb"a.",
        rb"^a",
        rb"a$",
        rb"[^a]",
        rb"\s",
        rb"[a ]",
        rb"[!-~]",
        rb"a*",
        rb"\b",
        rb"(?i)a",
        rb"\x20",
    ):
        assert not wordwise(pattern)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regex, "_MEMO", 4)
    memo = regex._Memo(bytes.upper)
    for index in range(20):
        assert memo[b"a%d" % index] == b"A%d" % index
        assert len(memo) <= 4
    assert memo[b"a" * 100] == b"A" * 100
    assert b"a" * 100 not in memo
