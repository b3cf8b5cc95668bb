"""String ops over any bytes (NUL, what is not UTF-8, nothing at all) against TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.witness import tf
from torch_towers.errors import InputError
from torch_towers.ops import strings as ops

alphabet = st.sampled_from(
    [
        b" ",
        b"\t",
        b"\n",
        b"\x0b",
        b"\x0c",
        b"\r",
        b"\x1c",
        b"\x85",
        b"\xa0",
        b"a",
        b"B",
        b",",
        b",,",
        b"\0",
        "é".encode(),
        "İ".encode(),
        b"\xe2\x82",
    ]
)
texts = st.one_of(st.lists(alphabet, max_size=8).map(b"".join), st.binary(max_size=12))
batches = st.lists(texts, min_size=1, max_size=6)
many = settings(max_examples=150, deadline=None)


def array(batch: list[bytes]) -> np.ndarray:
    return ops.strings(batch, (len(batch),))


def lists(results: object) -> list[object]:
    return [part.tolist() for part in results]  # type: ignore[attr-defined]


@many
@given(batches)
def test_case_strip_length(batch: list[bytes]) -> None:
    x = array(batch)
    assert ops.lower(x).tolist() == tf.strings.lower(batch).numpy().tolist()
    assert ops.upper(x).tolist() == tf.strings.upper(batch).numpy().tolist()
    assert ops.strip(x).tolist() == tf.strings.strip(batch).numpy().tolist()
    for unit in ("BYTE", "UTF8_CHAR"):
        assert ops.string_length(x, unit=unit).tolist() == tf.strings.length(batch, unit).numpy().tolist()


@many
@given(batches, st.sampled_from([b"", b" ", b",", b",,", b"\0", b"\xa0"]), st.integers(-1, 3))
def test_split(batch: list[bytes], sep: bytes, maxsplit: int) -> None:
    theirs = tf.raw_ops.StringSplitV2(input=batch, sep=sep, maxsplit=maxsplit)
    assert lists(ops.split(array(batch), sep=sep, maxsplit=maxsplit)) == [part.numpy().tolist() for part in theirs]


@many
@given(batches, st.binary(max_size=3), st.booleans())
def test_split_at_any(batch: list[bytes], delimiters: bytes, skip_empty: bool) -> None:
    theirs = tf.raw_ops.StringSplit(input=batch, delimiter=delimiters, skip_empty=skip_empty)
    ours = ops.split_at_any(array(batch), delimiters=delimiters, skip_empty=skip_empty)
    assert lists(ours) == [part.numpy().tolist() for part in theirs]


@many
@given(texts, st.integers(-7, 7), st.integers(-2, 7), st.sampled_from(["BYTE", "UTF8_CHAR"]))
def test_substr(text: bytes, pos: int, length: int, unit: str) -> None:
    try:
        theirs = tf.strings.substr([text], pos, length, unit).numpy().tolist()
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # the latter: TensorFlow's own message is not UTF-8
        with pytest.raises(InputError, match=f"^pos {pos} out of range for string"):
            ops.substr(array([text]), torch.tensor(pos), torch.tensor(length), unit=unit)
    else:
        assert ops.substr(array([text]), torch.tensor(pos), torch.tensor(length), unit=unit).tolist() == theirs


@many
@given(
    st.lists(st.lists(texts, max_size=5), max_size=4),
    st.lists(st.integers(1, 4), max_size=3),
    st.binary(max_size=2),
    st.sampled_from([b"", b"<"]),
    st.integers(-1, 3),
    st.booleans(),
)
def test_ngrams(
    rows: list[list[bytes]], widths: list[int], separator: bytes, pad: bytes, pad_width: int, short: bool
) -> None:
    values = [token for row in rows for token in row]
    splits = np.cumsum([0, *map(len, rows)])
    arguments = {"left_pad": pad, "right_pad": pad + b">", "pad_width": pad_width, "separator": separator}
    try:
        theirs = tf.raw_ops.StringNGrams(
            data=tf.constant(values, tf.string),
            data_splits=splits,
            ngram_widths=widths,
            preserve_short_sequences=short,
            **arguments,
        )
    except tf.errors.InvalidArgumentError as error:
        with pytest.raises(InputError, match=r"^Pad width should be >= 0") as raised:
            ops.ngrams(array(values), torch.as_tensor(splits), widths=tuple(widths), preserve_short=short, **arguments)
        assert str(raised.value) in str(error)  # noqa: PT017
    else:
        ours = ops.ngrams(
            array(values), torch.as_tensor(splits), widths=tuple(widths), preserve_short=short, **arguments
        )
        assert lists(ours) == [part.numpy().tolist() for part in theirs]


@pytest.mark.parametrize("bounds", [[1, 3], [0, 2], [0, 4], [0, 2, 1, 3]])
def test_ngrams_refuses_bad_splits(bounds: list[int]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as theirs:
        tf.raw_ops.StringNGrams(
            data=["a", "b", "c"],
            data_splits=bounds,
            separator="",
            ngram_widths=[1],
            left_pad="",
            right_pad="",
            pad_width=0,
            preserve_short_sequences=False,
        )
    with pytest.raises(InputError) as ours:
        ops.ngrams(array([b"a", b"b", b"c"]), torch.tensor(bounds), separator=b"", widths=(1,))
    assert str(ours.value) in str(theirs.value)


@many
@given(st.binary(max_size=12), st.booleans())
def test_base64(text: bytes, pad: bool) -> None:
    coded = ops.encode_base64(array([text]), pad=pad)
    assert coded.tolist() == tf.io.encode_base64([text], pad=pad).numpy().tolist()
    assert ops.decode_base64(coded).tolist() == [text]


@many
@given(st.lists(st.sampled_from([b"Y", b"Q", b"=", b"_", b"-", b"/", b"+", b" ", b"\xff"]), max_size=9).map(b"".join))
def test_base64_syntax(text: bytes) -> None:
    try:
        theirs = tf.io.decode_base64([text]).numpy().tolist()
    except tf.errors.InvalidArgumentError as error:
        with pytest.raises(InputError) as raised:
            ops.decode_base64(array([text]))
        assert str(raised.value) in str(error)  # noqa: PT017
    else:
        assert ops.decode_base64(array([text])).tolist() == theirs


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"shapes do not match: \[1\] vs. \[2\]"):
        ops.string_join(array([b"a"]), array([b"a", b"b"]))
    with pytest.raises(InputError, match="not allowed to exceed num_segments"):
        ops.segment_join(array([b"a"]), torch.tensor([1]), 1)
    with pytest.raises(InputError, match="must be a vector"):
        ops.split(ops.strings([b"a"], ()))
