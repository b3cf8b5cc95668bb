"""The numbers of dtypes are TensorFlow's own."""

from __future__ import annotations

import numpy as np
import pytest

from porting.errors import CorruptModelError
from porting.saved_model.dtypes import DTYPES, dtype_of
from tests.witness import tf


@pytest.mark.parametrize("number", [n for n in DTYPES if 0 < n < 100])
def test_each_is_tensorflows(number: int) -> None:
    theirs, ours = tf.dtypes.as_dtype(number), DTYPES[number]
    assert {"half": "float16"}.get(theirs.name, theirs.name) == ours.name
    if ours.itemsize:
        assert ours.itemsize == theirs.size
    if ours.numpy is not None and ours.name != "string":
        assert ours.numpy == np.dtype(theirs.as_numpy_dtype)


def test_a_reference_is_a_plain_dtype_to_whoever_reads_it() -> None:
    assert DTYPES[101].name == "float32"
    assert DTYPES[101].proto == "DT_FLOAT_REF"


def test_others() -> None:
    assert dtype_of(3, "here").name == "int32"
    with pytest.raises(CorruptModelError, match=r"^node 'x': dtype number 99, expected one of TensorFlow's"):
        dtype_of(99, "node 'x'")
