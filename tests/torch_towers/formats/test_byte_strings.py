"""Byte strings as object arrays: no byte is lost, and a scalar stays an array."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torch_towers.formats.byte_strings import string, strings


@given(st.lists(st.binary(max_size=5), max_size=12))
def test_every_byte_is_kept(items: list[bytes]) -> None:
    array = strings(items)
    assert array.dtype == object and array.shape == (len(items),) and array.tolist() == items
    assert strings(items * 6, (2, -1, 3) if items else (0, 3)).reshape(-1).tolist() == items * 6


def test_trailing_nul_and_rank_0() -> None:
    assert string(b"a\0").shape == () and string(b"a\0").item() == b"a\0"
    assert strings([b"a\0"], ()).item() == b"a\0"
