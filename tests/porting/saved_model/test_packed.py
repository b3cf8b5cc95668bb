"""Packed strings are read as one varint after the other says, whatever the block that they are read in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.errors import CorruptModelError
from porting.saved_model import packed
from tests.porting.saved_model.tables import varint


def read(data: bytes, count: int) -> list[bytes]:
    blocks = list(packed.packed_lengths(data, count, "here"))
    at = blocks[-1][1] if blocks else 0
    return packed.packed_strings(data, at, (lengths for lengths, _ in blocks), count).tolist()


def pack(strings: list[bytes]) -> bytes:
    return b"".join(varint(len(string)) for string in strings) + b"".join(strings)


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=3) | st.sampled_from([b"", b"x" * 127, b"y" * 128, b"z" * 20_000])), st.integers(3, 9)
)
def test_any_strings_in_any_blocks(strings: list[bytes], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_BLOCK", size)
        assert read(pack(strings), len(strings)) == strings
        assert read(memoryview(pack(strings)), len(strings)) == strings  # type: ignore[reportArgumentType]


def test_no_strings() -> None:
    assert read(b"", 0) == [] == read(b"abc", 0)


@pytest.mark.parametrize("data", [
    b"", b"\x80", b"\x01", b"\x80\x00ab", b"\x81\x80\x00ab", b"\x80" * 9 + b"\x01", b"\xff" * 9 + b"\x01", b"\x80" * 70_000 + b"\x01", b"\x7f\x00",
])  # fmt: skip
def test_damaged_lengths_are_refused(data: bytes) -> None:
    """Truncated, padded, of more than 63 bits, or of more bytes than there are."""
    with pytest.raises(CorruptModelError, match="here: "):
        list(packed.packed_lengths(data, 2, "here"))
