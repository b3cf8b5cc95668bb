"""StringLookup and IntegerLookup of Keras, lifted: TensorFlow's ids, for any key, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.porting.rewrites.models import LOOKUPS
from tests.porting.rewrites.test_layers import INTEGERS, PRODUCERS, STRINGS, Get, assert_same, categories
from tests.witness import run


@pytest.mark.parametrize("producer", PRODUCERS)
def test_lookups(exported: Get, producer: str) -> None:
    model = exported(f"{producer} lookups")
    plain = ("plain", "oov_3", "masked", "masked_oov_2", "no_oov")
    for name in LOOKUPS:
        if name in plain:
            assert model.kind(f"string_{name}") == "StringLookup"
            assert model.kind(f"integer_{name}") == "IntegerLookup"
        elif name != "one_hot":
            assert model.kind(f"string_{name}") == model.kind(f"integer_{name}") == "CategoryEncoding"
    assert model.lifted.counts["StringLookup"] == model.lifted.counts["IntegerLookup"] == len(LOOKUPS)
    hashes = [name for name in model.lifted.graph.outputs if name.startswith("hash_") and "hot" not in name]
    assert {model.kind(name) for name in hashes} == {"Hashing"}
    assert model.kind("inverse") == "LookupTable" and "so it stays a table" in model.refusal("Lookup")
    for rows in (1, 2, 17):
        model.check(categories(rows))


def test_a_token_without_a_bucket_is_refused(exported: Get) -> None:
    batch = categories(2)
    batch["known"][1, 2] = b"nowhere"
    with pytest.raises(ValueError, match="When `num_oov_indices=0` all inputs should be in vocabulary"):
        run(exported("keras lookups").program, batch)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_lookups_equal_the_ops_on_any_input(exported: Get, data: Any) -> None:
    model = exported("keras lookups")
    texts = st.one_of(st.sampled_from(STRINGS.tolist()), st.binary(max_size=90))
    integers = st.one_of(st.sampled_from(INTEGERS.tolist()), st.integers(-(2**63), 2**63 - 1))
    batch = categories(2)
    for name, strategy in (("t", texts), ("t3", texts), ("n", integers), ("n3", integers)):
        drawn = data.draw(st.lists(strategy, min_size=batch[name].size, max_size=batch[name].size))
        batch[name] = np.array(drawn, batch[name].dtype).reshape(batch[name].shape)
    assert_same(model, batch)
