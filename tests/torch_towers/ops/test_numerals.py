"""Numbers as text and text as numbers against TensorFlow, at the edges of every dtype."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.witness import tf
from torch_towers.errors import InputError
from torch_towers.ops.numerals import as_string, to_number
from torch_towers.ops.strings import strings

many = settings(max_examples=300, deadline=None)
forms = st.fixed_dictionaries(
    {
        "precision": st.integers(-1, 12),
        "width": st.integers(-1, 20),
        "fill": st.sampled_from(["", "0", "-", " ", "+", "#"]),
    }
)
notation = st.sampled_from([{}, {"scientific": True}, {"shortest": True}])


@many
@given(
    st.lists(st.floats(), min_size=1, max_size=8),
    forms,
    notation,
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_floats_as_text(values: list[float], form: dict[str, object], kind: dict[str, bool], dtype: type) -> None:
    with np.errstate(over="ignore"):
        x = np.array(values, np.float64).astype(dtype)
    theirs = tf.strings.as_string(x, **form, **kind).numpy().tolist()
    assert as_string(torch.from_numpy(x), **form, **kind).tolist() == theirs  # type: ignore[arg-type]


@many
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8),
    st.integers(-1, 20),
    st.sampled_from(["", "0", "-", " ", "+", "#"]),
)
def test_integers_as_text(values: list[int], width: int, fill: str) -> None:
    for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        x = np.array(values, np.int64).astype(dtype)
        assert (
            as_string(torch.from_numpy(x), width=width, fill=fill).tolist()
            == tf.strings.as_string(x, width=width, fill=fill).numpy().tolist()
        )


def same(ours: bytes, dtype: str) -> None:
    """Both read the same number, to the sign of zero, or refuse with the same sentence."""
    try:
        theirs = tf.strings.to_number([ours], tf.as_dtype(dtype)).numpy()
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
        with pytest.raises(InputError, match=r"^StringToNumberOp could not correctly convert string: "):
            to_number(strings([ours], (1,)), dtype=dtype)
        return
    mine = to_number(strings([ours], (1,)), dtype=dtype).numpy()
    assert mine.dtype == theirs.dtype
    assert np.array_equal(mine, theirs, equal_nan=True), (ours, mine, theirs)
    assert np.isnan(mine.astype(np.float64)).any() or np.array_equal(
        np.signbit(mine.astype(np.float64)), np.signbit(theirs.astype(np.float64))
    )


DTYPES = ["float32", "float64", "int32", "int64", "uint32", "uint64"]
parts = st.sampled_from(
    [
        b"0",
        b"1",
        b"9",
        b"12",
        b".",
        b"e",
        b"E",
        b"-",
        b"+",
        b" ",
        b"\t",
        b"\n",
        b"x",
        b"0x",
        b"p",
        b"a",
        b"inf",
        b"nan",
        b"iNiTy",
        b"(",
        b")",
        b"_",
        b"\0",
        b"\xa0",
        b"99999999999",
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(parts, max_size=6).map(b"".join), st.sampled_from(DTYPES))
def test_syntax(text: bytes, dtype: str) -> None:
    same(text, dtype)


@many
@given(
    st.floats(), st.integers(0, 25), st.sampled_from(["%.*e", "%.*f", "%.*g"]), st.sampled_from(["float32", "float64"])
)
def test_floats_from_text(value: float, digits: int, form: str, dtype: str) -> None:
    same((form % (digits, value)).encode(), dtype)
    if math.isfinite(value):
        same(value.hex().encode(), dtype)


@many
@given(st.integers(0, 0x7F7FFFFF), st.sampled_from(["", "1", "0000000000001", "-"]))
def test_halfway_between_two_float32(bits: int, tail: str) -> None:
    """Exactly in the middle of two float32, and a hair beside it: a double in between would round twice."""
    below, above = (
        struct.unpack("<2f", struct.pack("<2I", bits, bits + 1))
        if bits < 0x7F7FFFFF
        else (struct.unpack("<f", struct.pack("<I", bits))[0], 2.0**128)
    )
    middle = f"{(below + above) / 2:.160f}"
    text = middle[:-1] + "9" if tail == "-" else middle + tail
    same(text.encode(), "float32")
    same((f"-{text}").encode(), "float32")


@many
@given(st.integers(-(2**65), 2**65), st.sampled_from(DTYPES), st.sampled_from([b"", b" ", b"00", b"+"]))
def test_integers_from_text(value: int, dtype: str, front: bytes) -> None:
    same(front + str(value).encode(), dtype)
