"""The native core matches character classes like RE2, on any bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torch_towers.kernels.test_native import assert_same, both
from tests.witness import tf
from torch_towers.kernels import native
from torch_towers.ops.re2 import compiled
from torch_towers.ops.regex import regex_replace
from torch_towers.ops.regex_classes import classes_of
from torch_towers.ops.strings import strings
from torch_towers.ops.text import regex_split_with_offsets

core = native.core
pytestmark = pytest.mark.skipif(core is None, reason="the native core was not built (no compiler)")

BERT = r"\s+|[!-/]|[:-@]|[\[-`]|[{-~]|[\p{P}]|[\x{4E00}-\x{9FFF}]|[\x{3400}-\x{4DBF}]|[\x{20000}-\x{2A6DF}]|[\x{F900}-\x{FAFF}]"
KERAS = r'[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']'
CLASSES = [
    BERT, KERAS, BERT.removeprefix(r"\s+|"), r"\s+", r"\s", r"[^\w\s]", r"[^\w\s]+", r"\p{Mn}", r"\pL+", r"\PL", r"\p{Cc}|\p{Cf}", r"\p{^L}+", ".", ".+",
    r"[[:space:]]+|[[:^alpha:]]", "é", "[é-日]+|é", r"\x{e9}+|\x41", "a|[ab]+|[bc]+", "[ab]+|a|[bc]+|c", "[^a]", "[]a]+", r"[\]\-]", r"\d+|\D", "[^]a]",
    r"\.|\++", "-", "[a-c]+|[b-d]+|[c-e]+|[d-f]+", r"[\n\t ]", r"\W+|_", r"[^\x00-\x7F]+", "_|ab", "a*", r"\bé", "(?i)[a]", "a{2}", "a+?", "(a)|b", "[a]b",
]  # fmt: skip
OTHERS = [
    "_|ab",
    "a*",
    r"\bé",
    "(?i)[a]",
    "a{2}",
    "a+?",
    "(a)|b",
    "[a]b",
    "^",
    "",
    "a|",
    "[a]?",
    r"\C",
    "(?:a)",
    "[a]+|[b]+|[c]+|[d]+|[e]+",
]
PIECES = [
    "a", "b", "c", "d", "e", "f", "A", "é", "É", "日", "\u4f60", "\U00020000", "\U0010ffff", "\u0301", "\u2028", "\u00a0", "\u200d", " ", "  ", "\n", "\t", "\v",
    "\x1c", "\0", "\x85", "-", "]", "[", "_", ".", "+", "\\", "`", "'", "!", "«", "1", "٣", "\ufffd",
]  # fmt: skip
BYTES = [*[piece.encode() for piece in PIECES], b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"]
texts = st.one_of(
    st.lists(st.sampled_from(BYTES), max_size=10).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join).map(str.encode),
    st.binary(max_size=8),
    st.text(max_size=8).map(str.encode),
)
batches = st.lists(texts, max_size=5)
REWRITES = [b"", b" ", b"<>", rb" \1 ", rb"\0", rb"[\0\0]", b"\\", b"a\\q", b"x" * 20]


@settings(max_examples=1500, deadline=None)
@given(batches, st.sampled_from(CLASSES), st.booleans(), st.sampled_from(REWRITES))
def test_replacing(batch: list[bytes], pattern: str, group: bool, rewrite: bytes) -> None:
    found = (f"({pattern})" if group else pattern).encode()
    assert_same(*both(lambda: (regex_replace(strings(batch, (-1,)), pattern=found, rewrite=rewrite),)))


@settings(max_examples=1500, deadline=None)
@given(batches, st.sampled_from(CLASSES), st.sampled_from([*CLASSES, ""]), st.booleans())
def test_splitting(batch: list[bytes], delimiter: str, keep: str, group: bool) -> None:
    pattern = (f"({delimiter})" if group else delimiter).encode()
    kept = (f"({keep})" if keep and group else keep).encode()
    assert_same(*both(lambda: regex_split_with_offsets(strings(batch, (-1,)), delimiter=pattern, keep=kept)))


@pytest.mark.parametrize("pattern", [pattern for pattern in CLASSES if pattern not in OTHERS])
def test_every_code_point_is_what_re2_finds(pattern: str) -> None:
    table, find = classes_of(pattern.encode()), compiled(pattern.encode())
    assert table is not None
    pages, kinds = np.frombuffer(table[:0x2200], np.uint16), np.frombuffer(table[0x2200:], np.uint8).reshape(-1, 256)
    alone = kinds[pages].ravel() > 0
    for code in [*range(0x3100), *range(0x3100, 0x110000, 61), 0xD7FF, 0xE000, 0x10FFFF]:
        if not 0xD800 <= code < 0xE000:
            assert alone[code] == (find.fullmatch(chr(code).encode()) is not None), hex(code)


@pytest.mark.parametrize("pattern", OTHERS)
def test_other_patterns_are_left_to_re2(pattern: str) -> None:
    assert classes_of(pattern.encode()) is None


def test_classes_are_found_by_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = strings(["Ça va?  你好".encode(), b"", b"a-b", b"cut\0off!"] * 100, (400,))
    monkeypatch.setattr("torch_towers.ops.regex.each", None)  # makes the Python fallback fail
    monkeypatch.setattr("torch_towers.ops.text._split_one_by_one", None)
    replaced = regex_replace(texts.reshape(2, 200), pattern=rb"[^\w\s]", rewrite=b"")
    assert replaced.shape == (2, 200) and replaced[0, :4].tolist() == [b"a va  ", b"", b"ab", b"cutoff"]
    tokens, starts, limits, splits = regex_split_with_offsets(
        texts, delimiter=f"({BERT})".encode(), keep=BERT[4:].encode()
    )
    assert [token.decode() for token in tokens[:9]] == ["Ça", "va", "?", "你", "好", "a", "-", "b", "cut"]
    assert splits[:5].tolist() == [0, 5, 5, 8, 9]
    assert starts[:5].tolist() == [0, 4, 6, 9, 12] and limits[:5].tolist() == [3, 6, 7, 12, 15]


def test_equals_tensorflow() -> None:
    batch = ["".join(PIECES).encode(), "naïve café, 你好!  don't ×3".encode(), b"", b"\xffa \xe2\x82b", b"\xed\xa0\x80"]
    for pattern in CLASSES:
        theirs = tf.strings.regex_replace(batch, f"({pattern})", r"<\1>").numpy().tolist()
        ours = regex_replace(strings(batch, (-1,)), pattern=f"({pattern})".encode(), rewrite=rb"<\1>")
        assert ours.tolist() == theirs, pattern


def test_wrong_tables_are_refused() -> None:
    one, table = strings([b"a"], (1,)), classes_of(b"a")
    assert table is not None
    for wrong in (b"", table[:-1], table[: 0x1100 * 2], b"\xff" * len(table)):
        with pytest.raises(ValueError, match="table of classes"):
            core.replace_classes(one, wrong, b"", b"", False)
        with pytest.raises(ValueError, match="table of classes"):
            core.split_classes(one, table, wrong)
    for odd in ([b"a"], np.zeros(1, np.int64)):
        with pytest.raises((TypeError, ValueError)):
            core.split_classes(odd, table, None)
    assert core.replace_classes(strings(["a"], (1,)), table, b"", b"", False) == [None]  # type: ignore[list-item]
    assert core.split_classes(strings(["a"], (1,)), table, None)[4] == [0]  # type: ignore[list-item]
