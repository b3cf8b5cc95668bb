"""What the native core does of ops over strings and sparse integers equals the Python beside it, errors too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torch_towers.kernels.test_native import SPACES, TEXTS, assert_same, both
from torch_towers.kernels import native
from torch_towers.layers.buckets import Hashing
from torch_towers.layers.lookups import IntegerLookup, StringLookup
from torch_towers.layers.text import TextVectorization
from torch_towers.ops.dynamic import unique
from torch_towers.ops.numerals import as_string, to_number
from torch_towers.ops.ragged import ragged_fill_empty_rows
from torch_towers.ops.segments import segment_chunks
from torch_towers.ops.sparse import sparse_cross_keyed, sparse_fill_empty_rows, sparse_reshape
from torch_towers.ops.strings import lower, split, split_at_any, strings, substr, upper
from torch_towers.ops.unicode import unicode_decode, unicode_encode

pytestmark = pytest.mark.skipif(native.core is None, reason="the native core was not built (no compiler)")
many = settings(max_examples=100, deadline=None)
ANY = st.lists(
    st.one_of(TEXTS, st.binary(max_size=9), st.text(max_size=6).map(lambda t: t.encode("utf-8", "replace"))), max_size=6
)


@many
@given(
    ANY, st.sampled_from([b"", b" ", b"a", b"ab", b"aa", b"\xff", b"\0"]), st.sampled_from([-1, 0, 1, 2]), st.booleans()
)
def test_split(texts: list[bytes], marks: bytes, most: int, skip: bool) -> None:
    x = strings(texts, (-1,))
    assert_same(*both(lambda: split(x, sep=marks, maxsplit=most)))
    assert_same(*both(lambda: split_at_any(x, delimiters=marks, skip_empty=skip)))


def test_split_wants_a_vector() -> None:
    one, other = both(lambda: split(strings([b"a b"], (1, 1))))
    assert one == other and "must be a vector" in one


@many
@given(ANY)
def test_case(texts: list[bytes]) -> None:
    x = strings(texts, (-1,))
    for op in (lower, upper):
        assert_same(*both(lambda op=op: op(x, encoding="utf-8")))


def test_case_of_the_stress_corpus() -> None:
    from tests.corpus.stress import corpus

    texts = [text.encode() if isinstance(text, str) else text for text in corpus()]
    for op in (lower, upper):
        assert_same(*both(lambda op=op: op(strings(texts, (-1,)), encoding="utf-8")))


def test_one_letter_is_not_changed_for_others() -> None:
    """Python shares the objects of single bytes."""
    assert lower(strings([b"A", b"a"], (2,)), encoding="utf-8").tolist() == [b"a", b"a"]
    assert bytes([65]) == b"A" and bytes([97]) == b"a"


@many
@given(ANY, st.integers(-8, 8), st.integers(-2, 8), st.sampled_from(["BYTE", "UTF8_CHAR"]), st.data())
def test_substr(texts: list[bytes], pos: int, length: int, unit: str, data: st.DataObject) -> None:
    x, dtype = strings(texts, (-1,)), data.draw(st.sampled_from([torch.int32, torch.int64]))
    each = data.draw(st.lists(st.integers(-3, 3), min_size=len(texts), max_size=len(texts)))
    for positions in (torch.tensor(pos, dtype=dtype), torch.tensor(each, dtype=dtype)):
        lengths = torch.full_like(positions, length)
        assert_same(*both(lambda p=positions, n=lengths: substr(x, p, n, unit=unit)))


NUMBERS = st.one_of(
    st.floats().map(lambda x: repr(x).encode()), st.integers(-(2**65), 2**65).map(lambda x: b"%d" % x), st.binary(max_size=4),
    st.from_regex(rb"[+-]?[0-9]{0,20}\.?[0-9]{0,20}([eE][+-]?[0-9]{0,3})?", fullmatch=True),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(SPACES, NUMBERS, SPACES).map(b"".join), max_size=3),
    st.sampled_from(["float32", "float64", "int32", "int64"]),
)
def test_to_number(texts: list[bytes], dtype: str) -> None:
    assert_same(*both(lambda: to_number(strings(texts, (-1,)), dtype=dtype)))


@many
@given(st.lists(st.integers(-1, 5), max_size=9), st.integers(0, 5), st.booleans())
def test_rows_are_filled(rows: list[int], count: int, ascending: bool) -> None:
    rows = sorted(rows) if ascending else rows
    indices = torch.tensor([[row, i] for i, row in enumerate(rows)], dtype=torch.int64).reshape(-1, 2)
    shape, numbers = torch.tensor([count, 9]), torch.arange(len(rows), dtype=torch.float32)
    words = strings([b"%d" % row for row in rows], (-1,))
    assert_same(*both(sparse_fill_empty_rows, indices, numbers, shape, torch.tensor(-1.0)))
    assert_same(*both(sparse_fill_empty_rows, indices, words, shape, strings([b"?"], ())))
    assert_same(*both(ragged_fill_empty_rows, indices[:, 0], numbers, count, torch.tensor(-1.0)))


@many
@given(
    st.lists(st.integers(0, 4), max_size=60),
    st.booleans(),
    st.sampled_from([None, 3, 5, 7]),
    st.sampled_from([torch.int32, torch.int64]),
)
def test_segments_are_cut(ids: list[int], ascending: bool, count: int | None, dtype: torch.dtype) -> None:
    given_ids = torch.tensor(sorted(ids) if ascending else ids, dtype=dtype)
    sizes = () if count is None else (count,)
    assert_same(*both(segment_chunks, torch.zeros(len(ids), dtype=torch.int64), given_ids, *sizes))
    assert_same(*both(segment_chunks, torch.zeros(len(ids) + 1, dtype=torch.int64), given_ids, *sizes))


INTEGERS = st.one_of(st.integers(-3, 3), st.sampled_from([2**31 - 1, -(2**31)]))


@many
@given(
    st.lists(INTEGERS, max_size=40),
    st.sampled_from([torch.int32, torch.int64, torch.float32]),
    st.sampled_from(["int32", "int64"]),
)
def test_unique(values: list[int], dtype: torch.dtype, out: str) -> None:
    assert_same(*both(lambda: unique(torch.tensor(values, dtype=dtype), axis=None, dtype=out)))


def test_the_same_shape_changes_nothing() -> None:
    indices, shape = torch.tensor([[0, 1], [2, 0]]), torch.tensor([3, 2])
    found, given_back = sparse_reshape(indices, shape, torch.tensor([3, 2]))
    assert torch.equal(found, indices) and torch.equal(given_back, shape)
    found, given_back = sparse_reshape(indices, shape, torch.tensor([-1, 3]))
    assert found.tolist() == [[0, 1], [1, 1]] and given_back.tolist() == [2, 3]


def test_crosses_are_hashed() -> None:
    words = strings([b"a", b"", b"\xff" * 70], (-1,))
    indices = torch.tensor([[0, 0], [1, 0], [1, 1]])
    cross: Any = ((indices,), (words,), (torch.tensor([2, 2]),), (torch.tensor([[3], [4]]),))
    assert_same(*both(lambda: sparse_cross_keyed(*cross, buckets=50, hash_key=7)))


def test_what_is_not_bytes_is_left() -> None:
    other = np.array(["a", b"b", None], object)
    assert native.core.split(other, b"", 0, True) is None
    assert native.core.ascii_case(other, False) == [None, b"b", None]
    assert native.core.cut(other, np.zeros(3, np.int64), np.ones(3, np.int64), False) is None
    assert native.core.read_numbers(other, True, np.empty(3)) is False


def test_buffers_are_checked() -> None:
    ids = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match="another size"):
        native.core.distinct(ids, np.empty(2, np.int64), np.empty(3, np.int64), np.empty(3, np.int64))
    with pytest.raises(ValueError, match="another size"):
        native.core.fill_rows(ids, 1, np.empty(3, np.int64), np.empty(3, np.int64), np.empty(2, bool))
    with pytest.raises(ValueError, match="64-bit"):
        native.core.chunks(np.zeros(3, np.int32), ids.copy(), ids.copy(), ids.copy())
    with pytest.raises(ValueError, match="unknown way"):
        native.core.split(np.array([b"a"], object), b"", 1, False)


@many
@given(ANY, st.booleans(), st.booleans(), st.sampled_from(["replace", "ignore", "strict"]))
def test_code_points(texts: list[bytes], offsets: bool, control: bool, errors: str) -> None:
    x = strings(texts, (-1,))
    options: Any = {"input_encoding": "UTF-8", "errors": errors, "replace_control": control, "offsets": offsets}
    assert_same(*both(lambda: unicode_decode(x, **options, splits_dtype="int32" if control else "int64")))


CODES = st.one_of(
    st.integers(0, 0x10FFFF),
    st.sampled_from([-1, 0xD800, 0xDFFF, 0x110000, 2**31 - 1, 0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF]),
)


@many
@given(
    st.lists(st.lists(CODES, max_size=4), max_size=4),
    st.sampled_from(["replace", "ignore", "strict"]),
    st.sampled_from(["int32", "int64"]),
)
def test_texts_of_code_points(rows: list[list[int]], errors: str, dtype: str) -> None:
    splits = torch.tensor([0, *map(len, rows)]).cumsum(0).to(getattr(torch, dtype))
    codes = torch.tensor([code for row in rows for code in row], dtype=torch.int32)
    assert_same(*both(lambda: unicode_encode(codes, splits, output_encoding="UTF-8", errors=errors)))
    assert_same(*both(lambda: unicode_encode(codes, splits + 1, output_encoding="UTF-8", errors=errors)))


@many
@given(
    st.lists(st.one_of(INTEGERS, st.sampled_from([2**63 - 1, -(2**63)])), max_size=9),
    st.sampled_from([(), (7, 2**64 - 1)]),
)
def test_integers_are_hashed_as_text(values: list[int], salt: tuple[int, ...]) -> None:
    for x in (
        torch.tensor(values, dtype=torch.int64),
        torch.tensor([v for v in values if abs(v) < 2**31], dtype=torch.int32),
    ):
        hashed, other = both(Hashing(11, salt, 5), x)
        assert_same(hashed, other)
        assert_same(hashed, Hashing(11, salt, b"5")(as_string(x)))


@many
@given(
    ANY,
    st.sampled_from([(), (1, 2), (2,), (3, 1)]),
    st.sampled_from(["int", "count", "multi_hot"]),
    st.sampled_from([b"", b","]),
    st.sampled_from([0, 3]),
)
def test_text_vectorization(texts: list[bytes], widths: tuple[int, ...], mode: str, mark: bytes, buckets: int) -> None:
    words = strings([b"a", b"ab", b"a b", b"b", b"zz"], (5,))
    layer = TextVectorization(
        words,
        2,
        7,
        buckets,
        None,
        0,
        "utf-8",
        ((rb"[!,.]", b""),),
        mark,
        widths,
        b" ",
        mode,
        size=10 if mode != "int" else 0,
    )
    assert_same(*both(layer, strings(texts, (-1, 1))))


@many
@given(st.lists(st.integers(-9, 9), max_size=9), st.integers(1, 4))
def test_unknown_ids(values: list[int], buckets: int) -> None:
    assert_same(*both(IntegerLookup(torch.tensor([1, -3]), 2, 4, buckets), torch.tensor(values, dtype=torch.int64)))
    assert_same(
        *both(
            StringLookup(strings([b"1", b"-3"], (2,)), 2, 4, buckets),
            as_string(torch.tensor(values, dtype=torch.int64)),
        )
    )
