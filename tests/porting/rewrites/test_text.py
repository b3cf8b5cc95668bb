"""TextVectorization of Keras, lifted: TensorFlow's rows of ids, for any text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.porting.rewrites.models import TEXTS
from tests.porting.rewrites.test_layers import PIECES, PRODUCERS, Get, assert_same, texts


@pytest.mark.parametrize("producer", PRODUCERS)
def test_texts(exported: Get, producer: str) -> None:
    model = exported(f"{producer} texts")
    whole = [name for name in TEXTS if name not in ("characters", "whole", "tf_idf")]
    assert {name: model.kind(name) for name in whole} == dict.fromkeys(whole, "TextVectorization")
    assert "its tokens come from 'unicode_encode'" in model.refusal("TextVectorization")
    assert model.kind("whole") == "StringLookup"
    for rows in (1, 2, 17):
        model.check(texts(rows))
    model.check({"t": np.array([[b""], [b" "]], object)})


@settings(max_examples=25, deadline=None)
@given(
    lines=st.lists(
        st.one_of(st.lists(st.sampled_from(PIECES)).map(b" ".join), st.binary(max_size=40)), min_size=1, max_size=4
    )
)
def test_texts_equal_the_ops_on_any_input(exported: Get, lines: list[bytes]) -> None:
    batch = np.empty((len(lines), 1), object)
    batch[:, 0] = lines
    assert_same(exported("keras texts"), {"t": batch})
