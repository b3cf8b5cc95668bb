"""StringLookup and IntegerLookup of Keras, lifted: TensorFlow's ids, for any key, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porting.saved_model import read
from porting.tower import PortedTower, port_tower
from tests.porting.rewrites.models import LOOKUPS
from tests.porting.rewrites.test_layers import INTEGERS, PRODUCERS, STRINGS, Get, assert_same, categories
from tests.witness import run, tf
from torch_towers.parity.answers import answer


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


WORDS = [b"red", b"", "größe".encode(), b"a b"]


class Buckets(tf.Module):
    """TensorFlow's own table with hash buckets behind it, of strings and of integers, which it hashes as strings."""

    def __init__(self) -> None:
        super().__init__()
        numbers = tf.range(len(WORDS), dtype=tf.int64)
        self.words, self.numbers, self.single = (
            tf.lookup.StaticVocabularyTable(tf.lookup.KeyValueTensorInitializer(keys, numbers), buckets)
            for keys, buckets in ((WORDS, 3), (numbers * 7, 2), (WORDS[::-1], 1))
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "t"), tf.TensorSpec([None], tf.int64, "n")])
    def serve(self, t: Any, n: Any) -> Any:
        return {"words": self.words.lookup(t), "numbers": self.numbers.lookup(n), "single": self.single.lookup(t)}


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Buckets, PortedTower]:
    module, folder = Buckets(), tmp_path_factory.mktemp("buckets") / "model"
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return module, port_tower(read(folder))


def test_buckets_of_tensorflows_tables_are_those_of_the_layer(buckets: tuple[Buckets, PortedTower]) -> None:
    spec = buckets[1].spec
    layers = [(layer.type, layer.args.get("oov_buckets")) for layer in spec.preprocess.modules.values()]
    assert sorted(layers, key=str) == [
        ("Hashing", None),
        ("IntegerLookup", None),
        ("StringLookup", 1),
        ("StringLookup", 3),
    ]
    nodes = [*spec.preprocess.nodes, *spec.encoder.nodes]
    assert sum(node.op == "where" for node in nodes) == 1, "of the integers, which are hashed as strings"


@settings(max_examples=30, deadline=None)
@given(
    words=st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=90)), min_size=1, max_size=5),
    data=st.data(),
)
def test_ids_of_tensorflows_tables(buckets: tuple[Buckets, PortedTower], words: list[bytes], data: Any) -> None:
    module, ported = buckets
    integers = st.one_of(st.integers(-40, 40), st.integers(-(2**63), 2**63 - 1))
    numbers = data.draw(st.lists(integers, min_size=len(words), max_size=len(words)))
    batch = {"t": np.array(words, object), "n": np.array(numbers, np.int64)}
    found = answer(ported.tower(), batch)
    assert isinstance(found, dict)
    for name, value in module.serve(**{key: tf.constant(value) for key, value in batch.items()}).items():
        assert np.array_equal(found[name], value.numpy()), name
