"""Regular expressions over any bytes against TensorFlow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torch_towers.budget import within_budget
from tests.witness import tf
from torch_towers.errors import InputError
from torch_towers.ops.re2 import compiled
from torch_towers.ops.regex import regex_full_match, regex_replace
from torch_towers.ops.strings import strings

PATTERNS = [
    r'[!"#$%&()\*\+,-\./:;<=>?@\[\\\]^_`{|}~\']', r"[a\-z\s\d]", r"[\w]", r"[\n]", "[^a]", r"\s+", r"[^\w\s]", "a*", "(a)|(b)", "", "a|", "é?", r"\b", "^", "$", "(?m)^|$", ".", r"(?s).",
    "[ab]+", r"\s", r"[\n\t ]+", "ab", "a ", r"[\]\-]", r"[+-\.]+", r"\w+",
    r"\C", r"\pL+", "(?i)É", "(a*)(b*)", "[[:space:]]", "a{2}", r"\x{e9}", r"[\x00-\x1f]", "(?i)[k]",
]  # fmt: skip
REWRITES = [b"", b" ", b"<>", rb"\0\0", rb"[\1]", rb"\2", rb"\\", rb"a\q", b"\\", b"\xff"]
pieces = st.sampled_from(
    [
        b"a",
        b"b",
        b" ",
        b"\n",
        b"\0",
        b"1",
        b"-",
        b"]",
        b"K",
        "é".encode(),
        "É".encode(),
        b"K",
        "日".encode(),
        b"\xff",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ]
)
texts = st.one_of(
    st.lists(pieces, max_size=8).map(b"".join), st.binary(max_size=8), st.text(max_size=5).map(str.encode)
)


@settings(max_examples=600, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.sampled_from(PATTERNS), st.sampled_from(REWRITES), st.booleans())
def test_any_bytes(batch: list[bytes], pattern: str, rewrite: bytes, everywhere: bool) -> None:
    x = strings(batch, (len(batch),))
    theirs = tf.raw_ops.StaticRegexReplace(input=batch, pattern=pattern, rewrite=rewrite, replace_global=everywhere)
    assert (
        regex_replace(x, pattern=pattern.encode(), rewrite=rewrite, replace_global=everywhere).tolist()
        == theirs.numpy().tolist()
    )
    assert (
        regex_full_match(x, pattern=pattern.encode()).tolist()
        == tf.strings.regex_full_match(batch, pattern).numpy().tolist()
    )


@pytest.mark.parametrize("pattern", ["(", "[", r"\1", "(?=a)", "a**", r"\p{Nothing}", "a{1001}"])
def test_what_re2_refuses(pattern: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as theirs:
        tf.strings.regex_full_match(["a"], pattern)
    with pytest.raises(InputError) as ours:
        compiled(pattern.encode())
    assert str(ours.value) in str(theirs.value)


GROUPS = """
from torch_towers.errors import InputError
from torch_towers.ops.regex import regex_full_match, regex_replace
import numpy as np
pattern, x = b"(" * 100_000 + b"a" + b")" * 100_000, np.array([b"a", b"b"], object)
print(regex_full_match(x, pattern=pattern).tolist(), regex_replace(x, pattern=pattern, rewrite=b"c").tolist())
try:
    regex_replace(x, pattern=pattern, rewrite=rb"\\1")
except InputError as error:
    print(error)
"""


def test_groups_that_nothing_reads_take_no_memory() -> None:
    """RE2 keeps every group of every thread: gigabytes for a hundred thousand. TensorFlow asks it for none but those of the rewrite."""
    said = within_budget(GROUPS, setup="from torch_towers.ops import regex")
    assert said.startswith("[True, False] [b'c', b'b']\n")
    assert "a regular expression has 100000 groups" in said
