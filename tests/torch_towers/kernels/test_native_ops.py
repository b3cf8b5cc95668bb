"""Native string and sparse ops equal their Python fallbacks, including errors."""

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
from torch_towers.ops.array import gather_nd, in_range, in_shape, one_hot
from torch_towers.ops.dynamic import unique
from torch_towers.ops.hashing import hash_bucket_legacy
from torch_towers.ops.math import bucketize
from torch_towers.ops.numerals import as_string, to_number
from torch_towers.ops.ragged import ragged_cross, ragged_fill_empty_rows, ragged_to_sparse, ragged_to_tensor
from torch_towers.ops.segments import bincount, ragged_bincount, segment_chunks
from torch_towers.ops.sparse import (
    sparse_bags,
    sparse_cross_hashed,
    sparse_cross_keyed,
    sparse_fill_empty_rows,
    sparse_reshape,
    sparse_to_dense,
)
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


@many
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-2, 9)), max_size=60),
    st.booleans(),
    st.integers(0, 5),
    st.sampled_from([torch.int32, torch.int64]),
    st.sampled_from([0, 1]),
)
def test_bags(elements: list[tuple[int, int]], ascending: bool, count: int, dtype: torch.dtype, more: int) -> None:
    elements = sorted(elements) if ascending else elements
    indices = torch.tensor([[row, 0, row] for row, _ in elements], dtype=torch.int64).reshape(-1, 3)
    values = torch.tensor([*(value for _, value in elements), *[-1] * more], dtype=dtype)
    assert_same(*both(sparse_bags, indices, values, torch.tensor([count, 9, 9])))


@many
@given(
    st.lists(st.integers(-1, 6), max_size=12),
    st.integers(0, 6),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["float32", "int64", "int32"]),
)
def test_histograms(values: list[int], size: int, width: int, once: bool, dtype: str) -> None:
    x, weights = torch.tensor(values, dtype=torch.int32), torch.empty(0, dtype=getattr(torch, dtype))
    rows = x[: len(x) // width * width].reshape(-1, width)
    assert_same(*both(lambda: bincount(rows, size, weights, binary_output=once)))
    assert_same(*both(lambda: bincount(rows[:0], size, weights, binary_output=once)))
    splits = torch.tensor([0, len(values) // 3, len(values) // 3, len(values)])
    assert_same(*both(lambda: ragged_bincount(splits, x, size, weights, binary_output=once)))


@many
@given(st.lists(st.integers(0, 4), max_size=5), st.integers(0, 3), st.sampled_from([torch.int32, torch.int64]))
def test_ragged_rows_as_sparse_ones(lengths: list[int], start: int, dtype: torch.dtype) -> None:
    splits = torch.tensor([0, *lengths], dtype=dtype).cumsum(0).to(dtype) + (1 if start == 3 else 0)
    values = torch.arange(sum(lengths))
    assert_same(*both(lambda: ragged_to_sparse((splits,), values)))
    assert_same(*both(lambda: ragged_to_sparse((splits,), strings([b"%d" % i for i in values], (-1,)))))


@many
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 2)), max_size=8), st.booleans(), st.booleans())
def test_sparse_elements_are_placed(elements: list[tuple[int, int]], ascending: bool, validate: bool) -> None:
    elements = sorted(elements) if ascending else elements
    indices, values = torch.tensor(elements, dtype=torch.int64).reshape(-1, 2), torch.arange(1.0, len(elements) + 1)
    words = strings([b"%d" % i for i in range(len(elements))], (-1,))
    assert_same(*both(lambda: sparse_to_dense(indices, values, torch.tensor(-1.0), 3, 2, validate=validate)))
    assert_same(*both(lambda: sparse_to_dense(indices, words, strings([b"?"], ()), 3, 2, validate=validate)))
    assert_same(*both(lambda: in_shape(indices, 3, 2, what="param shape")))
    assert_same(*both(lambda: sparse_to_dense(indices[:, 0], values, torch.tensor(-1.0), 3, validate=validate)))


@many
@given(ANY)
def test_legacy_hashes(texts: list[bytes]) -> None:
    assert_same(
        *both(
            lambda: hash_bucket_legacy(strings([*texts, *(text * 9 for text in texts)], (-1,)), num_buckets=2**63 - 1)
        )
    )


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


@many
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=4),
    st.integers(0, 2),
    st.sampled_from([0, 1, 50, 2**63 - 1]),
    st.sampled_from([7, -1, 2**64 - 1]),
    st.integers(-1, 1),
)
def test_crosses_of_rows(lengths: list[list[int]], dense: int, buckets: int, key: int, misfit: int) -> None:
    """Sparse columns of any row lengths, and dense ones; a misfit names a row that is not there."""
    rows = len(lengths)
    columns = [[(row, i) for row, sizes in enumerate(lengths) for i in range(sizes[c])] for c in range(2)]
    if misfit == 1 and columns[0]:
        columns[0][-1] = (rows, 0)
    indices = tuple(torch.tensor(column, dtype=torch.int64).reshape(-1, 2) for column in columns)
    values = (torch.arange(len(columns[0])), strings([b"%d" % i for i in range(len(columns[1]))], (-1,)))
    shapes = (torch.tensor([rows, 3]), torch.tensor([rows, 3]))
    cross: Any = (indices, values, shapes, (torch.arange(rows * dense).reshape(rows, dense),) if dense else ())
    if misfit != 1:
        assert_same(*both(lambda: sparse_cross_keyed(*cross, buckets=buckets, hash_key=key)))
        assert_same(*both(lambda: sparse_cross_hashed(*cross, buckets, torch.tensor([1, 2]), strong=False)))
        splits = tuple(torch.tensor([0, *(sizes[c] for sizes in lengths)]).cumsum(0) for c in range(2))
        ragged: Any = (values, splits, (), (), (), cross[3])
        options: Any = {"order": "RR" + "D" * len(cross[3]), "hashed": True, "buckets": buckets, "hash_key": key}
        assert_same(*both(lambda: ragged_cross(*ragged, **options, splits="int32")))
    else:
        assert native.core.cross(((np.zeros(1, np.uint64), np.zeros(rows, np.int64)),), rows, None, 3) is None


@many
@given(
    st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 1)), max_size=6), st.sampled_from([torch.int32, torch.int64])
)
def test_elements_at_indices(places: list[tuple[int, int]], dtype: torch.dtype) -> None:
    words = strings([b"%d" % i for i in range(6)], (3, 2))
    inside = [place for place in places if min(place) >= 0]
    indices = torch.tensor(inside, dtype=dtype).reshape(-1, 2)
    assert_same(*both(gather_nd, words, indices))
    assert_same(*both(gather_nd, words, indices.unsqueeze(0)))
    assert_same(*both(gather_nd, words, indices[:, :1]))
    assert_same(*both(in_range, torch.tensor(places, dtype=dtype), 2))


@many
@given(
    st.lists(st.integers(-2, 4), max_size=6),
    st.integers(0, 4),
    st.sampled_from([torch.int32, torch.int64]),
    st.sampled_from([torch.float32, torch.int32, torch.int64, torch.float64]),
    st.sampled_from([-1, 1, 2, 0]),
)
def test_one_hot_vectors(ids: list[int], depth: int, given_as: torch.dtype, dtype: torch.dtype, axis: int) -> None:
    x, on, off = torch.tensor(ids, dtype=given_as), torch.tensor(3, dtype=dtype), torch.tensor(-1, dtype=dtype)
    assert_same(*both(lambda: one_hot(x.reshape(-1, 1), depth, on, off, axis=axis)))
    assert_same(*both(lambda: one_hot(x, depth, on, off, axis=min(axis, 1))))


def test_one_hot_values_have_gradients() -> None:
    on, off = torch.tensor(2.0, requires_grad=True), torch.tensor(0.5)
    one_hot(torch.tensor([0, 5]), 3, on, off, axis=-1).sum().backward()
    assert on.grad is not None and on.grad.item() == 1.0


EDGES = st.floats(width=32, allow_nan=False)


@many
@given(
    st.lists(st.one_of(EDGES, st.just(float("nan")), st.sampled_from([1e-40, -1e-40, 0.0])), max_size=9),
    st.lists(EDGES, max_size=20),
    st.booleans(),
)
def test_buckets(values: list[float], edges: list[float], ascending: bool) -> None:
    boundaries = tuple(sorted(edges) if ascending else edges)
    assert_same(*both(lambda: bucketize(torch.tensor(values, dtype=torch.float32), boundaries=boundaries)))
    assert_same(*both(lambda: bucketize(torch.tensor([-3, 0, 2**31]), boundaries=boundaries)))


@many
@given(
    st.lists(st.integers(0, 4), max_size=5),
    st.sampled_from([-1, 0, 2, 5]),
    st.sampled_from([torch.int32, torch.int64]),
    st.integers(0, 1),
)
def test_rows_are_padded(lengths: list[int], width: int, dtype: torch.dtype, more: int) -> None:
    splits = torch.tensor([0, *lengths]).cumsum(0)
    values, pad = torch.arange(sum(lengths) + more, dtype=dtype), torch.tensor(-7, dtype=dtype)
    assert_same(*both(lambda: ragged_to_tensor(values, pad, (splits,), -1, width, types=("ROW_SPLITS",))))


def test_rows_of_wrong_lengths_are_left() -> None:
    values, pad, out = np.arange(3), np.array(0), np.empty((2, 2), np.int64)
    assert not native.core.pad_rows(values, np.array([2, 2]), pad, out)
    assert not native.core.pad_rows(values, np.array([-1, 4]), pad, out)
    assert not native.core.pad_rows(values, np.array([1, 1]), pad, out)
    with pytest.raises(ValueError, match="4 or 8 bytes"):
        native.core.pad_rows(values.astype(np.int16), np.array([1, 2]), pad, out)


def test_places_of_many_axes() -> None:
    """What has more axes, or more elements, than the core counts is left to torch."""
    indices = np.zeros((1, 17), np.int64)
    assert native.core.places(indices, (1,) * 17, None) == 0
    assert native.core.places(indices[:, :2].copy(), (2**40, 2**40), None) == 0
    with pytest.raises(OverflowError):
        native.core.places(indices[:, :1].copy(), (2**70,), None)


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
