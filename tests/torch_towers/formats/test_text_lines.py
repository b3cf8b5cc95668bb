"""Any bytes round-trip through readable lines."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.torch_towers.budget import within_budget
from torch_towers.errors import CheckpointError
from torch_towers.formats.text_lines import escape, from_lines, to_lines, unescape

TRAPS = [
    b"",
    b"\n",
    b"\r\n",
    b"\\",
    b"\\n",
    b"\\x00",
    b"\x00",
    b"\xff",
    "\u2028\ufeff\x85 é 日本".encode(),
    b"\xc2",
    b"\xed\xa0\x80",
]


@given(st.lists(st.binary(max_size=12) | st.sampled_from(TRAPS) | st.text(max_size=6).map(lambda t: t.encode())))
@example(TRAPS)
def test_any_bytes_survive(tokens: list[bytes]) -> None:
    data = to_lines(tokens)
    assert from_lines(data).tolist() == tokens
    assert len(data.decode().splitlines()) == len(tokens)  # UTF-8, and no editor sees other lines than we do


@given(st.binary())
def test_escape_is_one_line_and_reversible(token: bytes) -> None:
    assert unescape(escape(token)) == token
    assert b"\n" not in escape(token)


def test_text_stays_itself() -> None:
    assert escape('naïve café 日本 😀 a"b'.encode()) == 'naïve café 日本 😀 a"b'.encode()
    assert escape(b"a\\b\tc\xff") == b"a\\\\b\\tc\\xff"


def test_a_line_of_100_mb_takes_little_more_than_it_weighs() -> None:
    code = "data = rb'\\x00' * (25 << 20) + b'\\n'; print(len(text_lines.from_lines(data)[0]))"
    assert within_budget(code, setup="from torch_towers.formats import text_lines") == f"{25 << 20}\n"


@pytest.mark.parametrize("data", [b"a\nb", b"a\\q\n", b"\\x4\n", b"\\xGG\n", b"\\\n"])
def test_what_no_writer_wrote_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        from_lines(data)
