"""Tables, against TensorFlow's own: vocabulary files by its rules, imports, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from porting.errors import CorruptModelError, PortingError
from porting.saved_model.tables import Table, TextFile, read_text_file

counter = itertools.count()


def theirs(path: Path, form: TextFile, key_dtype: str, value_dtype: str) -> dict[Any, Any] | None:
    """What TensorFlow reads; None where it refuses."""
    tf = pytest.importorskip("tensorflow")
    handle = tf.raw_ops.HashTableV2(key_dtype=key_dtype, value_dtype=value_dtype, shared_name=f"test{next(counter)}")
    try:
        tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=handle, filename=str(path), key_index=form.key_index, value_index=form.value_index,
            vocab_size=form.vocab_size, delimiter=form.delimiter, offset=form.offset,
        )  # fmt: skip
    except (
        tf.errors.InvalidArgumentError,
        tf.errors.OutOfRangeError,
        tf.errors.FailedPreconditionError,
        UnicodeDecodeError,
    ):
        return None  # UnicodeDecodeError: an error message that quotes the file
    keys, values = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=key_dtype, Tvalues=value_dtype)
    return dict(zip(keys.numpy().tolist(), values.numpy().tolist()))


def ours(path: Path, form: TextFile, key_dtype: str, value_dtype: str) -> dict[Any, Any] | None:
    table = Table("t", key_dtype, value_dtype, path, False, lambda: read_text_file(path, form, key_dtype, value_dtype))
    try:
        assert table.keys.dtype == table.keys.dtype.newbyteorder("=")
        return dict(zip(table.keys.tolist(), table.values.tolist()))
    except CorruptModelError:
        return None


def compare(path: Path, data: bytes, form: TextFile, key_dtype: str = "string", value_dtype: str = "int64") -> None:
    path.write_bytes(data)
    expected = theirs(path, form, key_dtype, value_dtype)
    found = ours(path, form, key_dtype, value_dtype)
    assert canonical(found) == canonical(expected), (data, form)


def canonical(contents: dict[Any, Any] | None) -> list[str] | None:
    """In an order of its own, and with NaN equal to NaN."""
    return None if contents is None else sorted(map(repr, contents.items()))


LINES = TextFile(-2, -1)


@pytest.mark.parametrize(
    "data",
    [
        b"a\r\nb\r\nc", b"a\rx\nb\n", b"a\nb", b"a\n\nb\n", b"a\nb\n\n", b"a\n\r\nb\n", b"a\nb\n\r", b"a\r\r\nb", b"a\nb\na\n", b"\xef\xbb\xbfa\n", b"",
        b"\n", b"\r", b" a \nb\t\n", b"a\0b\nc\n", b"\xff\xfe\n\x80", b"x" * 300_000 + b"\ny\r\n",
    ],
)  # fmt: skip
def test_lines(tmp_path: Path, data: bytes) -> None:
    compare(tmp_path / "v", data, LINES)


@pytest.mark.parametrize("size", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("data", [b"a\nb\n", b"a\n\n", b"a\nb", b"a\nb\na\n"])
@pytest.mark.parametrize("offset", [0, 5])
def test_sizes_and_offsets(tmp_path: Path, data: bytes, size: int, offset: int) -> None:
    compare(tmp_path / "v", data, TextFile(-2, -1, vocab_size=size, offset=offset))


@pytest.mark.parametrize("key, value", itertools.product([-2, -1, 0, 1, 2], repeat=2))
@pytest.mark.parametrize(
    "data", [b"a\t1\nb\t2\n", b"a\t1\nb\n", b"a\t1\na\t1\n", b"a\t1\na\t2\n", b"\t1\nb\t2\n", b"1\t2\t3\n4\t5\t6\n"]
)
def test_columns(tmp_path: Path, data: bytes, key: int, value: int) -> None:
    for dtypes in (("string", "int64"), ("int64", "string"), ("string", "string")):
        compare(tmp_path / "v", data, TextFile(key, value), *dtypes)


TOKENS = [
    " 12", "+5", "-7 ", "0x10", "1_0", "1e3", "", " ", "007", "-0", "+", "--1", "1 2", "9223372036854775807", "9223372036854775808",
    "2147483647", "2147483648", "-2147483648", "-2147483649", "1.5", ".5", "5.", ".", "inf", "-inf", "+infinity", "nan", "-NaN", "0x1p3", "0x.8p1",
    "1e400", "1e-50", "1e", "1.5f", "16777217", "16777217.0000000000001", "16777216.9999999999999", "0.1", "٣", "1d3", "nan(1)", "infi",
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("token", TOKENS)
def test_numbers(tmp_path: Path, token: str, dtype: str) -> None:
    compare(tmp_path / "v", b"a," + token.encode() + b"\n", TextFile(0, 1, delimiter=b","), "string", dtype)


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    compare(tmp_path / "v", b"a\ttrue\n", TextFile(0, 1), "string", "bool")
    compare(tmp_path / "v", b"a\n", LINES, "string", "int32")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.sampled_from([b"a", b"b", b"1", b"2", b"\t", b"\n", b"\r", b" ", b"\0", b"\xff"]), max_size=12).map(b"".join),
    key=st.integers(-2, 1), value=st.integers(-2, 1), size=st.integers(-1, 3), offset=st.integers(-1, 2),
    dtypes=st.sampled_from([("string", "int64"), ("int64", "string"), ("string", "string")]),
)  # fmt: skip
def test_any_file(
    tmp_path: Path, data: bytes, key: int, value: int, size: int, offset: int, dtypes: tuple[str, str]
) -> None:
    compare(tmp_path / "v", data, TextFile(key, value, vocab_size=size, offset=offset), *dtypes)


def imported(keys: Any, values: Any, mutable: bool) -> dict[Any, Any] | None:
    key_dtype, value_dtype = ("string" if array.dtype == object else array.dtype.name for array in (keys, values))
    table = Table("t", key_dtype, value_dtype, None, mutable, lambda: (keys, values))
    try:
        return dict(zip(table.keys.tolist(), table.values.tolist()))
    except CorruptModelError:
        return None


@pytest.mark.parametrize("mutable", [False, True])
@pytest.mark.parametrize("keys, values", [("aba", [1, 2, 3]), ("aba", [1, 2, 1]), ("", []), ("ab", [1, 2])])
def test_repeated_keys(keys: str, values: list[int], mutable: bool) -> None:
    tf = pytest.importorskip("tensorflow")
    make = tf.raw_ops.MutableHashTableV2 if mutable else tf.raw_ops.HashTableV2
    handle = make(key_dtype="string", value_dtype="int64", shared_name=f"import{next(counter)}")
    words, numbers = np.array([key.encode() for key in keys], object), np.array(values, np.int64)
    expected = None
    try:
        tf.raw_ops.LookupTableImportV2(table_handle=handle, keys=tf.constant(words, tf.string), values=numbers)
        exported = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys="string", Tvalues="int64")
        expected = dict(zip(*(array.numpy().tolist() for array in exported)))
    except (tf.errors.FailedPreconditionError, tf.errors.InvalidArgumentError):
        pass
    found = imported(words, numbers, mutable)
    assert found == expected


def test_contradictions_are_refused() -> None:
    keys, values = np.array([b"a"], object), np.array([1], np.int64)
    for table in (
        Table("t", "int64", "int64", None, False, lambda: (keys, values)),
        Table("t", "string", "float32", None, False, lambda: (keys, values)),
        Table("t", "string", "int64", None, False, lambda: (keys, np.array([1, 2]))),
    ):
        with pytest.raises(PortingError, match="'t'"):
            len(table)
